"""The local executor beyond what every executor has to do."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.errors import ConfigError, PoolFailed, UsageError
from penstock.executors import guarded
from penstock.executors.base import Exit, Launch
from penstock.executors.local import LocalExecutor
from penstock.executors.nursery import Nursery
from penstock.protocol.messages import EngineConfig, PythonWork, Requests, WireRequest
from penstock.testing.executors import MOCK, PATIENCE_S, StartedReplica, exits, gone, parent_of, wait_for_exits

pytestmark = pytest.mark.process

PYTHON = EngineConfig("python", "python", task="python")
FORKED = PythonWork(forked=True)


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    executor = LocalExecutor()
    yield executor
    executor.close()


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., Launch]:
    def launch(config: EngineConfig = MOCK, **fields: object) -> Launch:
        return Launch("writer-0", config, tmp_path / "logs" / "writer-0.log", **fields)  # type: ignore[arg-type]

    return launch


def test_the_cause_comes_first_in_the_tail(executor: LocalExecutor, launch: Callable[..., Launch]) -> None:
    config = EngineConfig("mock", "mock:x", engine_options={"oom_over_tokens": 1})
    replica = StartedReplica(executor.start(launch(config), 0)).make_ready(config)
    replica.send(Requests([WireRequest(1, 1, "one two three")]))
    (end,) = wait_for_exits(executor, 1)
    assert end.status == 1
    assert end.tail.startswith("out of memory: 19 tokens executing, the limit is 1")
    assert len(end.tail.encode()) <= 4096
    replica.channel.close()


def test_a_log_is_appended_to_and_the_tail_is_of_this_start(
    executor: LocalExecutor, launch: Callable[..., Launch]
) -> None:
    one = launch()
    one.log.parent.mkdir()
    one.log.write_text("ValueError: of the last run\n")
    replica = StartedReplica(executor.start(one, 0)).make_ready()
    executor.kill("writer-0", 0)
    (end,) = wait_for_exits(executor, 1)
    assert "of the last run" not in end.tail
    assert one.log.read_text().startswith("ValueError: of the last run\n")
    replica.channel.close()


def test_variables_are_set_before_anything_is_imported(
    executor: LocalExecutor, launch: Callable[..., Launch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "binding_seen.py").write_text(
        "import os\nSEEN = os.environ.get('OMP_NUM_THREADS')\n"
        "def seen(row):\n    return {'threads': SEEN, 'cores': sorted(os.sched_getaffinity(0))}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    core = min(os.sched_getaffinity(0))
    config = EngineConfig("python", "python", task="python", cores=(core,))
    one = launch(config, work=PythonWork(("binding_seen:seen",)), env={"OMP_NUM_THREADS": "3"})
    replica = StartedReplica(executor.start(one, 0)).make_ready(config, work=one.work)
    assert replica.ask({}).items[0].value == {"threads": "3", "cores": [core]}
    replica.channel.close()


def test_another_interpreter_gets_this_penstock(
    executor: LocalExecutor, launch: Callable[..., Launch], tmp_path: Path
) -> None:
    other = tmp_path / "other-python"
    other.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    other.chmod(0o755)
    replica = StartedReplica(executor.start(launch(python=str(other)), 0)).make_ready()
    assert replica.ask("hello").items[0].code == ""
    replica.channel.close()


def test_an_interpreter_that_is_not_there(executor: LocalExecutor, launch: Callable[..., Launch]) -> None:
    with pytest.raises(ConfigError, match="no such interpreter '/nowhere/python'"):
        executor.start(launch(python="/nowhere/python"), 0)


def test_an_interpreter_that_is_none(executor: LocalExecutor, launch: Callable[..., Launch], tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("not a program")
    broken.chmod(0o755)
    replica = StartedReplica(executor.start(launch(python=str(broken)), 0))
    (end,) = wait_for_exits(executor, 1)
    assert end.status == 127
    assert end.tail.startswith("penstock host: OSError: [Errno 8] Exec format error")
    replica.channel.close()


def test_a_log_that_cant_be_written(executor: LocalExecutor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't write the log"):
        executor.start(Launch("writer-0", MOCK, tmp_path / "file" / "log"), 0)


def test_one_incarnation_starts_once(executor: LocalExecutor, launch: Callable[..., Launch]) -> None:
    replica = StartedReplica(executor.start(launch(), 0))
    with pytest.raises(UsageError, match="incarnation 0 before"):
        executor.start(launch(), 0)
    replica.channel.close()


def test_a_guardian_that_was_killed_is_an_exit(executor: LocalExecutor, launch: Callable[..., Launch]) -> None:
    replica = StartedReplica(executor.start(launch(), 0)).make_ready()
    os.kill(replica.started.keeper_pid, signal.SIGKILL)
    (end,) = wait_for_exits(executor, 1)
    assert end.status == -signal.SIGKILL
    replica.channel.close()


# ---------------------------------------------------------------- functions by fork


def test_a_closure_reaches_its_worker_and_the_next_one(launch: Callable[..., Launch]) -> None:
    factor = 7
    executor = LocalExecutor(Nursery([None, lambda row: {"y": row["x"] * factor}]))
    for incarnation in range(2):
        replica = StartedReplica(executor.start(launch(PYTHON, work=FORKED), incarnation)).make_ready(
            PYTHON, work=FORKED
        )
        assert replica.ask({"x": 6}, step=1).items[0].value == {"y": 42}
        executor.kill("writer-0", incarnation)
        assert wait_for_exits(executor, 1)[0].incarnation == incarnation
        replica.channel.close()
    executor.close()


def test_what_a_forked_function_prints_is_in_the_log(launch: Callable[..., Launch]) -> None:
    executor = LocalExecutor(Nursery([lambda row: print("from the worker")]))
    one = launch(PYTHON, work=FORKED)
    replica = StartedReplica(executor.start(one, 0)).make_ready(PYTHON, work=FORKED)
    assert replica.ask({}).items[0].code == ""
    assert "from the worker" in one.log.read_text()
    replica.channel.close()
    executor.close()


def test_closing_ends_the_nursery() -> None:
    nursery = Nursery([])
    LocalExecutor(nursery).close()
    assert gone(nursery.pid)


def test_a_nursery_that_died_is_told(launch: Callable[..., Launch]) -> None:
    nursery = Nursery([None])
    executor = LocalExecutor(nursery)
    os.kill(nursery.pid, signal.SIGKILL)
    with pytest.raises(PoolFailed, match="has ended"):
        executor.start(launch(PYTHON, work=FORKED), 0)
    assert executor.news_files() == []
    executor.close()


def test_a_process_with_threads_is_not_forked() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="heartbeat-of-a-notebook")
    thread.start()
    try:
        with pytest.raises(UsageError, match=r"heartbeat-of-a-notebook.*put the functions into a module"):
            Nursery([lambda row: row])
    finally:
        release.set()
        thread.join()


def test_a_forked_worker_needs_a_nursery(executor: LocalExecutor, launch: Callable[..., Launch]) -> None:
    with pytest.raises(UsageError, match="without a nursery"):
        executor.start(launch(PYTHON, work=FORKED), 0)


WITH_A_CHILD = """
import os, subprocess, sys
def child(row):
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
    return {"child": started.pid}
"""


@pytest.fixture(params=["guardian", "keeper"])
def stopped(
    executor: LocalExecutor,
    launch: Callable[..., Launch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[list[int]]:
    """A replica whose guardian, or its keeper, is stopped: the numbers of keeper, guardian, host, and a child that has
    left the host's session."""
    (tmp_path / "with_a_child.py").write_text(WITH_A_CHILD)
    monkeypatch.syspath_prepend(str(tmp_path))
    work = PythonWork(("with_a_child:child",))
    replica = StartedReplica(executor.start(launch(PYTHON, work=work), 0))
    replica.make_ready(PYTHON, work=work)
    assert replica.hello is not None
    child = replica.ask({}).items[0].value["child"]
    above = {"keeper": replica.started.keeper_pid, "guardian": parent_of(replica.hello.pid)}
    os.kill(above[request.param], signal.SIGSTOP)
    yield [*above.values(), replica.hello.pid, child]
    replica.channel.close()


def test_a_guardian_that_is_stopped_goes_on_when_its_replica_is_to_end(
    executor: LocalExecutor, stopped: list[int]
) -> None:
    os.kill(stopped[2], signal.SIGKILL)
    executor.kill("writer-0", 0)
    (end,) = wait_for_exits(executor, 1)
    assert end.status == -9
    executor.close()
    assert all(map(gone, stopped))


def test_what_is_below_a_guardian_that_hangs_is_ended_all_the_same(
    executor: LocalExecutor, stopped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "KILL_LIMIT_S", 0.0)
    monkeypatch.setattr(signal, "SIGCONT", signal.SIGURG)  # as of a guardian that waits for a disk
    executor.kill("writer-0", 0)
    (end,) = wait_for_looks(executor)
    assert end.status == -9
    executor.close()
    assert all(map(gone, stopped))


def wait_for_looks(executor: LocalExecutor) -> list[Exit]:
    """As the runtime does for a replica that it has killed: it looks, whether or not there is something to see."""
    until_s = time.monotonic() + PATIENCE_S
    found: list[Exit] = []
    while not found and time.monotonic() < until_s:
        found = exits(executor)
        time.sleep(0.01)
    return found
