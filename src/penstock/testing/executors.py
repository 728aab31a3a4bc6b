"""Conformance tests for executors: subclass `ExecutorConformance` and make the executor.

The replicas run the mock engine, so that nothing but the executor is under test.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from penstock.executors.base import Executor, Exit, Launch, Started
from penstock.protocol.channel import Channel
from penstock.protocol.messages import (
    Answers,
    Close,
    EngineConfig,
    Hello,
    LoadFailed,
    Ready,
    Requests,
    Setup,
    ToCoordinator,
    WireRequest,
)
from penstock.protocol.options import Sampling
from penstock.protocol.payloads import Payload
from penstock.protocol.wire import coordinator_decoder

__all__ = [
    "ExecutorConformance",
    "StartedReplica",
    "gone",
    "parent_of",
    "wait_for_connection",
    "wait_for_exits",
    "writers_below",
]

PATIENCE_S = 60.0

MOCK = EngineConfig("mock", "mock:executor", engine_options={"slots": 2})


class StartedReplica:
    """One started replica, seen from the coordinator."""

    def __init__(self, started: Started) -> None:
        assert started.connection is not None
        self.started = started
        self.channel = Channel(started.connection, coordinator_decoder())
        self.hello: Hello | None = None

    def next(self, *kinds: type[ToCoordinator]) -> ToCoordinator:
        """The next message of these kinds; AssertionError when the connection ends or nothing comes."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            select.select([self.channel.fileno()], [], [], 0.1)
            for message in self.channel.receive():
                if isinstance(message, kinds):
                    return message
            assert not self.channel.closed, f"the connection ended before any of {kinds}"
        raise AssertionError(f"none of {kinds} within {PATIENCE_S} s")

    def make_ready(self, config: EngineConfig = MOCK, **setup: object) -> StartedReplica:
        self.hello = self.next(Hello)  # type: ignore[assignment]
        self.send(Setup(self.started.replica, config, **setup))  # type: ignore[arg-type]
        answer = self.next(Ready, LoadFailed)
        assert isinstance(answer, Ready), answer
        return self

    def send(self, message: Setup | Requests | Close) -> None:
        self.channel.send(message)
        self.channel.flush()

    def ask(self, payload: Payload, step: int = 0) -> Answers:
        self.send(Requests([WireRequest(1, 1, payload, 0, 0, step)], [Sampling(max_tokens=3)]))
        while True:
            answers = self.next(Answers)
            assert isinstance(answers, Answers)
            if answers.items:
                return answers


def exits(executor: Executor) -> list[Exit]:
    """Of the executor's news, how replicas ended."""
    return [item for item in executor.news() if isinstance(item, Exit)]


def wait_for_exits(executor: Executor, count: int) -> list[Exit]:
    """The next `count` exits, through the descriptors that the executor names."""
    found: list[Exit] = []
    until_s = time.monotonic() + PATIENCE_S
    while len(found) < count and time.monotonic() < until_s:
        select.select(executor.news_files(), [], [], 0.1)
        found += exits(executor)
    assert len(found) == count, found
    return found


def wait_for_connection(executor: Executor, started: Started) -> Started:
    """`started`, once its host can be spoken to."""
    until_s = time.monotonic() + PATIENCE_S
    while started.connection is None and time.monotonic() < until_s:
        select.select(executor.news_files(), [], [], 0.1)
        for found in executor.news():
            if (found.replica, found.incarnation) == (started.replica, started.incarnation):
                assert isinstance(found, Started), f"{started.replica} ended: {found.tail}"
                started = found
    assert started.connection is not None, f"{started.replica} did not dial back"
    return started


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def writers_below(folder: Path) -> list[int]:
    """Processes of this machine whose standard output is a file in `folder`: those of replicas, by their logs."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended, or is another user's
            if os.readlink(f"/proc/{name}/fd/1").startswith(f"{folder}/"):
                found.append(int(name))
    return found


def parent_of(pid: int) -> int:
    """The parent of a process of this machine that has not been reaped."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class ExecutorConformance:
    """Override `make`. Processes are looked for on this machine where `local` says that they are here."""

    local = True
    cycles = 20

    def make(self) -> Executor:
        raise NotImplementedError

    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        executor = self.make()
        yield executor
        executor.close()

    @pytest.fixture
    def start(self, executor: Executor, tmp_path: Path) -> Iterator[Callable[..., StartedReplica]]:
        replicas: list[StartedReplica] = []

        def start(name: str = "writer-0", incarnation: int = 0, config: EngineConfig = MOCK) -> StartedReplica:
            launch = Launch(name, config, tmp_path / "logs" / f"{name}.log")
            replicas.append(StartedReplica(wait_for_connection(executor, executor.start(launch, incarnation))))
            return replicas[-1]

        yield start
        for replica in replicas:
            replica.channel.close()

    def test_a_replica_starts_answers_and_closes(
        self, executor: Executor, start: Callable[..., StartedReplica]
    ) -> None:
        replica = start().make_ready()
        assert replica.ask("hello").items[0].code == ""
        replica.send(Close())
        (end,) = wait_for_exits(executor, 1)
        assert (end.replica, end.incarnation, end.status) == ("writer-0", 0, 0)
        assert executor.news() == []

    def test_a_killed_replica_exits_once(self, executor: Executor, start: Callable[..., StartedReplica]) -> None:
        start().make_ready()
        executor.kill("writer-0", 0)
        executor.kill("writer-0", 0)
        (end,) = wait_for_exits(executor, 1)
        assert end.status < 0
        assert executor.news() == []

    def test_stacks_are_in_the_tail_when_asked_for(
        self, executor: Executor, start: Callable[..., StartedReplica]
    ) -> None:
        start().make_ready()
        executor.kill("writer-0", 0, dump_stacks=True)
        (end,) = wait_for_exits(executor, 1)
        assert "most recent call first" in end.tail

    def test_a_host_that_dies_is_reported(self, executor: Executor, start: Callable[..., StartedReplica]) -> None:
        config = EngineConfig("mock", "mock:x", engine_options={"crash_on": "poison"})
        replica = start(config=config).make_ready(config)
        replica.send(Requests([WireRequest(1, 1, "poison")]))
        (end,) = wait_for_exits(executor, 1)
        assert end.status == -9

    def test_incarnations_are_distinguished(self, executor: Executor, start: Callable[..., StartedReplica]) -> None:
        start(incarnation=0).make_ready()
        start(incarnation=1).make_ready()
        executor.kill("writer-0", 0)
        (end,) = wait_for_exits(executor, 1)
        assert end.incarnation == 0
        executor.kill("writer-0", 0)  # of one that has ended: nothing happens
        executor.kill("writer-0", 1)
        (end,) = wait_for_exits(executor, 1)
        assert end.incarnation == 1

    def test_a_kill_of_an_unknown_replica_is_ignored(self, executor: Executor) -> None:
        executor.kill("nobody-0", 3)
        assert executor.news() == []

    def test_close_leaves_no_process(self, executor: Executor, start: Callable[..., StartedReplica]) -> None:
        replicas = [start(f"writer-{number}").make_ready() for number in range(3)]
        executor.close()
        assert executor.news_files() == []
        if self.local:
            for replica in replicas:
                assert replica.hello is not None
                assert gone(replica.hello.pid)
                assert not replica.started.keeper_pid or gone(replica.started.keeper_pid)

    def test_cycles_leak_nothing(self, executor: Executor, start: Callable[..., StartedReplica]) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for cycle in range(self.cycles):
            replica = start(incarnation=cycle).make_ready()
            executor.kill("writer-0", cycle)
            wait_for_exits(executor, 1)
            replica.channel.close()
        executor.close()
        assert len(os.listdir("/proc/self/fd")) <= before
