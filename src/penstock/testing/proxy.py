"""An HTTP proxy on loopback that delays, cuts, drops, repeats and swaps replies at random, from a seed."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from random import Random
from typing import Self

__all__ = ["KINDS", "FaultyProxy", "LoopbackServer"]

KINDS = ("pass", "delay", "cut", "drop", "swallow", "repeat", "ask_twice", "swap", "stray", "earlier")
_KNOWN = 20  # answers that pass before one of them comes again: until then nobody knows that ids are unique
_STRAY = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}"


class LoopbackServer:
    """A server on a port of this machine, in a thread of its own. `_connection` serves each connection."""

    def __init__(self) -> None:
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loopback-server", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = socket.socket()

    def __enter__(self) -> Self:
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(1024)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._thread.start()
        self._loop.call_soon_threadsafe(self._loop.add_reader, self._listener, self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()
        self._listener.close()

    def _accept(self) -> None:
        # Not asyncio.Server: one that is closed while it accepts leaves that connection open (Python 3.11).
        with suppress(BlockingIOError, ConnectionAbortedError):
            self._begin(self._served(self._listener.accept()[0]))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stop(self) -> None:
        self._loop.remove_reader(self._listener)
        await asyncio.sleep(0)  # every task begins: one that is cancelled before closes no connection
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    async def _served(self, connection: socket.socket) -> None:
        with suppress(OSError, asyncio.CancelledError):
            reader, writer = await asyncio.open_connection(sock=connection)
            try:
                await self._connection(reader, writer)
            finally:
                writer.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class FaultyProxy(LoopbackServer):
    """Between clients and 127.0.0.1:`target`; `port` is where it listens. In a thread of its own; use it in `with`.

    weights: how often a reply fares as each of KINDS:

        pass       as it should be
        delay      late by up to `delay_s`
        cut        the connection ends in the middle of the reply
        drop       the connection ends in place of the reply
        swallow    nothing comes, and the connection stays open
        repeat     it comes twice, the second time at once or up to `delay_s` later
        ask_twice  the service is asked twice, and both replies come back
        swap       it goes to another client, whose reply comes here; as it should be where none comes for `delay_s`
        stray      a reply to nobody follows it, at once or up to `delay_s` later
        earlier    an answer that passed before comes in its place

    seen: whether the client has had this reply; only such a one comes again as an earlier one.
    `met` counts the replies of each kind, a swap where a partner was found. Replies need a Content-Length.
    """

    def __init__(
        self,
        target: int,
        weights: Mapping[str, float],
        *,
        seed: int = 0,
        delay_s: float = 0.05,
        seen: Callable[[bytes], bool] = lambda reply: True,
    ) -> None:
        unknown = set(weights) - set(KINDS)
        if unknown:
            raise ValueError(f"no such fault: {sorted(unknown)}; there are {', '.join(KINDS)}")
        super().__init__()
        self.met: Counter[str] = Counter()
        self._target, self._delay_s, self._seen = target, delay_s, seen
        self._weights = [weights.get(kind, 0.0) for kind in KINDS]
        self._rng = Random(seed)
        self._passed: deque[bytes] = deque(maxlen=50)
        self._swapping: tuple[bytes, asyncio.Future[bytes]] | None = None

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            while request := await _message(reader):
                (kind,) = self._rng.choices(KINDS, self._weights)
                there.write(request)
                reply = await _message(there_reader)
                if kind != "swap":
                    self.met[kind] += 1
                if not reply or kind == "drop":
                    return
                if kind == "cut":
                    writer.write(reply[: self._rng.randrange(len(reply))])
                    return
                if kind == "swallow":
                    continue
                if kind == "swap":
                    reply = await self._swapped(reply)
                if kind == "pass" and reply.startswith(b"HTTP/1.1 200 "):
                    self._passed.append(reply)
                if kind == "earlier":
                    reply = self._earlier() or reply
                if kind == "delay":
                    await asyncio.sleep(self._delay_s * self._rng.random())
                writer.write(reply)
                if kind in ("repeat", "stray"):
                    self._later(writer, reply if kind == "repeat" else _STRAY)
                if kind == "ask_twice":
                    self._later(writer, await self._ask(request))
        finally:
            there.close()

    def _earlier(self) -> bytes | None:
        found = [reply for reply in list(self._passed)[:-_KNOWN] if self._seen(reply)]
        return self._rng.choice(found) if found else None

    async def _ask(self, request: bytes) -> bytes:
        """The reply on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            writer.write(request)
            return await _message(reader)
        finally:
            writer.close()

    async def _swapped(self, reply: bytes) -> bytes:
        """The reply to another client, which gets this one."""
        if self._swapping is not None:
            other, waiting = self._swapping
            self._swapping = None
            waiting.set_result(reply)
            self.met["swap"] += 2
            return other
        waiting = self._loop.create_future()
        mine = self._swapping = (reply, waiting)
        done, _ = await asyncio.wait([waiting], timeout=self._delay_s)
        if done:
            return waiting.result()
        if self._swapping is mine:
            self._swapping = None
        return reply

    def _later(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Write it at once, a little later or much later, whatever has passed meanwhile."""
        delay_s = self._delay_s * self._rng.choice((0.0, 0.02, 0.1, 1.0))
        self._begin(_write_later(writer, data, delay_s))


async def _write_later(writer: asyncio.StreamWriter, data: bytes, delay_s: float) -> None:
    if delay_s:
        await asyncio.sleep(delay_s)
    if not writer.is_closing():
        with suppress(OSError):
            writer.write(data)
            await writer.drain()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """One request or reply, head and body; b"" where the connection ends before the end of it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return head + await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
