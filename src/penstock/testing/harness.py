"""Talks to a host over a socket, as a coordinator does, one step at a time: for tests of engines and hosts."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import penstock.host.boot
from penstock.protocol.channel import Channel
from penstock.protocol.messages import (
    Abort,
    Answer,
    Answers,
    Close,
    EngineConfig,
    Heartbeat,
    Hello,
    Load,
    LoadFailed,
    Loading,
    PythonWork,
    Ready,
    Request,
    Requests,
    Setup,
    TakeBack,
    ToCoordinator,
    requests_message,
)
from penstock.protocol.options import Options
from penstock.protocol.payloads import Payload
from penstock.protocol.wire import coordinator_decoder

__all__ = ["HostEnded", "HostHarness", "LoadingFailed"]

Kind = TypeVar("Kind")


class HostEnded(AssertionError):
    """The host went away while something was expected of it; the message has the end of its log."""


class LoadingFailed(Exception):
    """The engine did not load; `failure` is what the host said."""

    def __init__(self, failure: LoadFailed) -> None:
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure


class HostHarness:
    """One host process without a guardian. A context manager: the process is gone at its end.

        with HostHarness(log=tmp_path / "log") as host:
            host.load(EngineConfig("mock", "mock:x"))
            answers = host.ask(["a prompt", "another"], Sampling(max_tokens=4))

    seen       every message that has come, oldest first
    figures    the newest figures of the host
    unclaimed  answers that came and were not asked for yet
    """

    def __init__(self, log: Path, *, python: str | None = None, env: Mapping[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        self.log = log
        self.channel = Channel(ours, coordinator_decoder())
        self.seen: list[ToCoordinator] = []
        self.figures: Load | None = None
        self.unclaimed: list[Answer] = []
        self._next_id = 1
        with theirs, log.open("ab") as file:
            self.process = subprocess.Popen(
                [
                    python or sys.executable,
                    "-P",
                    str(Path(penstock.host.boot.__file__)),
                    "--fd",
                    str(theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    def __enter__(self) -> HostHarness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    # ------------------------------------------------------------ the conversation

    def load(
        self,
        config: EngineConfig,
        *,
        functions: Sequence[str] = (),
        timeout_s: float | None = None,
        version: str = "",
        patience_s: float = 120.0,
    ) -> Ready:
        """Send the Setup and wait for Ready. Raises LoadingFailed."""
        self.expect(Hello, patience_s)
        work = PythonWork(tuple(functions), timeout_s=timeout_s) if functions else None
        self.send(Setup("test-0", config, work, version=version))
        answer = self.expect_first((Ready, LoadFailed), patience_s)
        if isinstance(answer, LoadFailed):
            raise LoadingFailed(answer)
        assert isinstance(answer, Ready)
        return answer

    def send(self, message: Setup | Requests | TakeBack | Abort | Close) -> None:
        """Write one message; raises HostEnded if it is not read within half a minute."""
        self.channel.send(message)
        until_s = time.monotonic() + 30
        writable = select.poll()
        writable.register(self.channel.fileno(), select.POLLOUT)
        while not self.channel.flush():
            self._receive()  # a host that waits for us to read would never read itself
            if not writable.poll(100) and time.monotonic() > until_s:
                raise HostEnded(f"the host does not read\n{self.tail()}")

    def request(self, payload: Payload, options: Options | None = None, **fields: int) -> int:
        """Send one request; returns its id. fields: further ones of Request."""
        return self.request_many([payload], options, **fields)[0]

    def request_many(self, payloads: Sequence[Payload], options: Options | None = None, **fields: int) -> list[int]:
        """As `request`, in one message."""
        first = self._next_id
        self._next_id += len(payloads)
        items = [Request(payload, options, id, 1, **fields) for id, payload in enumerate(payloads, first)]
        self.send(requests_message(items, self.figures.sent_at if self.figures else 0.0))
        return [item.id for item in items]

    def answers(self, count: int, patience_s: float = 60.0) -> list[Answer]:
        """The next `count` answers, in the order in which they came."""
        self.until(lambda: len(self.unclaimed) >= count, f"{count} answers", patience_s)
        taken, self.unclaimed = self.unclaimed[:count], self.unclaimed[count:]
        return taken

    def ask(
        self, payloads: Sequence[Payload], options: Options | None = None, *, patience_s: float = 60.0, step: int = 0
    ) -> list[Answer]:
        """The answers to these requests, in their order."""
        ids = self.request_many(payloads, options, step=step)
        by_id = {answer.id: answer for answer in self.answers(len(ids), patience_s)}
        return [by_id[number] for number in ids]

    def take_back(self, ids: Sequence[int], patience_s: float = 30.0) -> list[int]:
        """Ask for these back; what the host returned."""
        known = len(self.seen)
        self.send(TakeBack(list(ids)))

        def reply() -> list[int] | None:
            for message in self.seen[known:]:
                if isinstance(message, Answers) and message.returned is not None:
                    return message.returned
            return None

        self.until(lambda: reply() is not None, "the reply to TakeBack", patience_s)
        return reply() or []

    def close(self, patience_s: float = 20.0) -> int:
        """End cleanly; the exit status."""
        self.send(Close())
        return self.process.wait(patience_s)

    # ------------------------------------------------------------ waiting

    def expect(self, kind: type[Kind], patience_s: float = 60.0) -> Kind:
        """The next message of this kind."""
        found = self.expect_first((kind,), patience_s)
        assert isinstance(found, kind)
        return found

    def expect_first(self, kinds: tuple[type, ...], patience_s: float = 60.0) -> ToCoordinator:
        known = len(self.seen) if self.seen and not isinstance(self.seen[-1], kinds) else 0
        self.until(lambda: any(isinstance(m, kinds) for m in self.seen[known:]), f"{kinds}", patience_s)
        return next(m for m in self.seen[known:] if isinstance(m, kinds))

    def until(self, condition: Callable[[], bool], what: str, patience_s: float = 60.0) -> None:
        """Receive until `condition` holds. Raises HostEnded when the host ends first, or when patience is over."""
        until_s = time.monotonic() + patience_s
        while not condition():
            if self.channel.closed:
                raise HostEnded(f"the host ended, status {self.process.wait(10)}; waiting for {what}\n{self.tail()}")
            if time.monotonic() > until_s:
                raise HostEnded(f"no {what} within {patience_s} s\n{self.tail()}")
            select.select([self.channel.fileno()], [], [], 0.1)
            self._receive()

    def _receive(self) -> None:
        for message in self.channel.receive():
            self.seen.append(message)
            if isinstance(message, Answers):
                self.unclaimed += message.items
            if isinstance(message, (Answers, Heartbeat)):
                self.figures = message.load

    def notes(self) -> list[str]:
        return [message.message for message in self.seen if isinstance(message, Loading)]

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4096:]
