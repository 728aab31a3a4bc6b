"""Replicas that are threads of this process: a driver's whole conversation with hosts, without a process."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from penstock.executors.base import Exit, Launch, Started
from penstock.planning.phases import PhasePlan
from penstock.planning.run_plan import PlannedReplica, PoolPlan, RunPlan
from penstock.protocol.channel import Channel
from penstock.protocol.messages import (
    PROTOCOL_VERSION,
    Answer,
    Answers,
    Capacity,
    EngineConfig,
    Hello,
    Load,
    Output,
    Ready,
    Request,
    Requests,
    Setup,
    WireRequest,
)
from penstock.protocol.options import Sampling
from penstock.protocol.wake_queue import WakeQueue
from penstock.protocol.wire import host_decoder
from penstock.runtime.pool.calls import Call, Generation
from penstock.runtime.pool.thread import PoolThread
from penstock.runtime.replicas.record import Record
from penstock.version import __version__

AnswerOf = Callable[[str, WireRequest], Answer | None]  # replica, request; None: it is never answered


def echo(replica: str, request: WireRequest) -> Answer:
    return Answer(request.id, request.attempt, outputs=[Output(f"{replica}: {request.payload}", "stop", 1)])


class ThreadExecutor:
    """See `executors.base.Executor`. breaks: replicas that end before they are ready, from `may_break` on."""

    def __init__(self, answer: AnswerOf = echo, breaks: Sequence[str] = ()) -> None:
        self._answer, self._breaks = answer, breaks
        self._news: WakeQueue[Started | Exit] = WakeQueue()
        self._hosts: dict[tuple[str, int], socket.socket] = {}
        self.may_break = threading.Event()
        self.setups: list[Setup] = []

    def start(self, launch: Launch, incarnation: int) -> Started:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._hosts[launch.replica, incarnation] = theirs
        threading.Thread(target=self._serve, args=(launch.replica, incarnation, theirs), daemon=True).start()
        return Started(launch.replica, incarnation, ours, 0)

    def kill(self, replica: str, incarnation: int, *, dump_stacks: bool = False) -> None:
        host = self._hosts.get((replica, incarnation))
        if host is not None:
            with suppress(OSError):  # its thread has closed it meanwhile
                host.shutdown(socket.SHUT_RDWR)

    def news_files(self) -> list[int]:
        return [self._news.fileno()]

    def news(self) -> list[Started | Exit]:
        return self._news.take()

    def close(self) -> None:
        for replica, incarnation in list(self._hosts):
            self.kill(replica, incarnation)
        self._news.close()

    def _serve(self, replica: str, incarnation: int, connection: socket.socket) -> None:
        channel = Channel(connection, host_decoder())
        channel.send(Hello(PROTOCOL_VERSION, __version__, 0, "3"))
        if replica in self._breaks:
            self.may_break.wait(20)
        done = 0
        while not channel.closed and replica not in self._breaks:
            channel.flush()
            select.select([connection], [], [], 5)
            for message in channel.receive():
                if isinstance(message, Setup):
                    self.setups.append(message)
                    channel.send(Ready(Capacity(4), 0.0))
                elif isinstance(message, Requests):
                    found = [self._answer(replica, request) for request in message.items]
                    items = [answer for answer in found if answer is not None]
                    done += len(items)
                    load = Load(0, len(found) - len(items), 0.0, 0.0, done, 0.0, 0.0)
                    channel.send(Answers(items=items, load=load))
        del self._hosts[replica, incarnation]
        channel.close()
        self._news.put(Exit(replica, incarnation, 1, "it broke" if replica in self._breaks else ""))


def plan_of(pools: dict[str, int]) -> RunPlan:
    """A plan with so many replicas in each pool, by name."""
    replicas = tuple(
        PlannedReplica(f"{name}-{number}", index, (), EngineConfig("mock", "mock:thread"), {})
        for index, (name, count) in enumerate(pools.items())
        for number in range(count)
    )
    placed = tuple(PoolPlan(name, (name,), "model", ()) for name in pools)
    return RunPlan(placed, replicas, {}, (PhasePlan(0, 0, tuple(range(len(pools)))),))


def pools_of(pools: dict[str, int], folder: Path, executor: ThreadExecutor | None = None) -> PoolThread:
    """The thread of these pools, not yet started. Close it and its record at the end."""
    plan = plan_of(pools)
    folder.mkdir(exist_ok=True)
    return PoolThread(plan, executor or ThreadExecutor(), Record(plan, folder))


@contextmanager
def started(thread: PoolThread) -> Iterator[PoolThread]:
    thread.start()
    try:
        yield thread
    finally:
        thread.close()
        thread.record.close()


def call_to(pool: str, *prompts: str) -> Call:
    return Call(pool, [Request(prompt, Sampling(max_tokens=4)) for prompt in prompts])


def texts(call: Call) -> list[str]:
    return [result.text for result in call.wait() if isinstance(result, Generation)]
