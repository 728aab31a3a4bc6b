"""The host as a process: what it says, and how it ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from penstock import __version__
from penstock.protocol.messages import (
    PROTOCOL_VERSION,
    Close,
    EngineConfig,
    Heartbeat,
    Hello,
    LoadFailed,
    Loading,
    Ready,
    Setup,
)
from penstock.protocol.options import Sampling
from penstock.testing.harness import HostEnded, HostHarness, LoadingFailed

pytestmark = pytest.mark.process

SHORT = Sampling(max_tokens=4)


def mock(**options: object) -> EngineConfig:
    return EngineConfig("mock", "mock:x", engine_options=dict(options))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_it_says_who_it_is(log: Path) -> None:
    with HostHarness(log) as host:
        hello = host.expect(Hello)
        assert (hello.version, hello.penstock, hello.pid) == (PROTOCOL_VERSION, __version__, host.process.pid)
        assert host.close() == 0


def test_heartbeats_flow_while_it_loads(log: Path) -> None:
    with HostHarness(log) as host:
        host.expect(Hello)
        host.send(Setup("a-0", mock(load_ms=3_600_000)))
        host.expect(Loading)
        host.until(lambda: sum(isinstance(message, Heartbeat) for message in host.seen) >= 2, "two heartbeats")
        assert not any(isinstance(message, Ready) for message in host.seen)


def test_requests_sent_before_it_is_ready_are_answered_after(log: Path) -> None:
    with HostHarness(log) as host:
        host.expect(Hello)
        host.send(Setup("a-0", mock(load_ms=50)))
        ids = host.request_many(["a", "b"], SHORT)
        assert {answer.id for answer in host.answers(2)} == set(ids)


def test_the_end_of_the_coordinator_ends_it(log: Path) -> None:
    with HostHarness(log) as host:
        host.load(mock())
        host.channel.close()
        assert host.process.wait(120) == 0


def test_the_end_of_the_coordinator_ends_it_while_it_loads(log: Path) -> None:
    with HostHarness(log) as host:
        host.expect(Hello)
        host.send(Setup("a-0", mock(load_ms=3_600_000)))
        host.expect(Loading)
        host.channel.close()
        assert host.process.wait(120) == 0


def test_garbage_ends_it_with_a_reason(log: Path) -> None:
    with HostHarness(log) as host:
        host.load(mock())
        host.channel.socket.send(b"\xff\xff\xff\xff")
        assert host.process.wait(120) == 1
        assert "does not speak this protocol" in host.tail()


def test_ctrl_c_is_not_its_business(log: Path) -> None:
    with HostHarness(log) as host:
        host.load(mock())
        os.kill(host.process.pid, signal.SIGINT)
        assert host.ask(["a"], SHORT)[0].code == ""


def test_sigusr1_prints_the_stacks_and_it_goes_on(log: Path) -> None:
    with HostHarness(log) as host:
        host.load(mock())
        os.kill(host.process.pid, signal.SIGUSR1)
        host.until(lambda: "most recent call first" in host.tail(), "the stacks")
        assert host.ask(["a"], SHORT)[0].code == ""


def test_an_unknown_option_fails_the_load(log: Path) -> None:
    with HostHarness(log) as host:
        with pytest.raises(LoadingFailed) as failed:
            host.load(mock(slot=3))
        assert failed.value.failure.code == "bad_model"
        assert "slot" in failed.value.failure.message and "slots" in failed.value.failure.message
        assert host.process.wait(120) == 3


def test_an_unknown_engine_fails_the_load(log: Path) -> None:
    with HostHarness(log) as host, pytest.raises(LoadingFailed, match="did you mean 'mock'"):
        host.load(EngineConfig("mok", "x"))


def test_a_mock_that_crashes_dies_by_sigkill(log: Path) -> None:
    with HostHarness(log) as host:
        host.load(mock(crash_on="poison"))
        assert host.ask(["fine"], SHORT)[0].code == ""
        host.request("some poison", SHORT)
        assert host.process.wait(120) == -signal.SIGKILL


def test_a_mock_that_hangs_answers_nothing_but_its_heart_beats(log: Path) -> None:
    with HostHarness(log) as host:
        host.load(mock(slots=2, hang_on="stop", ms_per_row=1))
        host.ask(["fine"], SHORT)
        host.request_many(["please stop", "other", "third"], SHORT)
        known = len(host.seen)
        host.until(lambda: sum(isinstance(m, Heartbeat) for m in host.seen[known:]) >= 3, "three heartbeats")
        beats = [message.load for message in host.seen[known:] if isinstance(message, Heartbeat)]
        assert {load.progress for load in beats[-2:]} == {beats[-1].progress}, "progress is frozen"
        assert beats[-1].executing == 2
        assert host.unclaimed == []


def test_a_mock_out_of_memory_says_so_and_exits(log: Path) -> None:
    with HostHarness(log) as host:
        host.load(mock(slots=4, oom_over_tokens=30, ms_per_row=1000))
        host.request_many(["one two three"] * 4, Sampling(max_tokens=5))
        assert host.process.wait(120) == 1
        assert "out of memory: 32 tokens executing, the limit is 30" in host.tail()


def test_tokens_of_requests_one_after_the_other_do_not_add_up(log: Path) -> None:
    with HostHarness(log) as host:
        host.load(mock(oom_over_tokens=30))
        assert {answer.code for answer in host.ask(["one two three"] * 50, Sampling(max_tokens=5))} == {""}


def test_a_mock_refuses_what_it_is_told_to(log: Path) -> None:
    with HostHarness(log) as host:
        host.load(mock(fail_on="bad"))
        good, bad = host.ask(["good", "a bad one"], SHORT)
        assert (good.code, bad.code) == ("", "refused")
        assert "fail_on" in bad.message
        assert host.ask(["x"], Sampling(max_tokens=0))[0].message.startswith("max_tokens must be at least 1")


def test_what_waits_is_taken_back_and_what_runs_is_not(log: Path) -> None:
    with HostHarness(log) as host:
        host.load(mock(slots=2, ms_per_row=200))
        ids = host.request_many(list("abcdef"), SHORT)
        assert host.take_back([*ids, 999]) == ids[2:]
        assert host.take_back(ids) == []
        assert {answer.id for answer in host.answers(2)} == set(ids[:2])


def test_an_aborted_request_gives_its_slot_to_the_next(log: Path) -> None:
    from penstock.protocol.messages import Abort

    with HostHarness(log) as host:
        host.load(mock(ms_per_row=3_600_000))
        first = host.request("never", SHORT)
        host.until(lambda: host.figures is not None and host.figures.executing == 1, "the first to start")
        host.send(Abort([first]))
        host.request("next", SHORT)
        host.take_back([])
        assert host.figures is not None
        assert (host.figures.executing, host.figures.waiting) == (1, 0)


def test_slots_run_at_once(log: Path) -> None:
    with HostHarness(log) as host:
        host.load(mock(slots=3, ms_per_row=3_600_000))
        host.request_many(list("abcde"), SHORT)
        host.until(lambda: host.figures is not None and host.figures.executing == 3, "three to execute")
        assert host.figures is not None
        assert host.figures.waiting == 2


def test_close_does_not_wait_for_requests(log: Path) -> None:
    with HostHarness(log) as host:
        host.load(mock(ms_per_row=3_600_000))
        host.request("never", SHORT)
        host.send(Close())
        assert host.process.wait(120) == 0


def test_the_harness_says_what_a_dead_host_printed(log: Path) -> None:
    with HostHarness(log) as host:
        host.load(mock(slots=1, oom_over_tokens=1))
        with pytest.raises(HostEnded, match="out of memory"):
            host.ask(["a b c"], SHORT)


def test_an_interpreter_without_msgspec_is_told_what_to_install(log: Path, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{os.path.realpath(os.sys.executable)}" -S "$@"\n')  # type: ignore[attr-defined]
    bare.chmod(0o755)
    with HostHarness(log, python=str(bare), env={"PYTHONPATH": ""}) as host:
        assert host.process.wait(120) == 1
        assert "-m pip install msgspec" in host.tail()


def test_load_failed_is_the_last_word(log: Path) -> None:
    with HostHarness(log) as host:
        host.expect(Hello)
        host.send(Setup("a-0", EngineConfig("mock", "mock:x", engine_options={"slots": 0})))
        failure = host.expect(LoadFailed)
        assert "slots" in failure.message and failure.code == "bad_model"
