"""A TCP proxy on loopback that delays, cuts, swallows and repeats what passes, one fault a connection, from a seed."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from random import Random

__all__ = ["FaultyProxy"]

_CHUNK_BYTES = 65_536
KINDS = ("pass", "delay", "cut", "swallow", "repeat")


class FaultyProxy:
    """Between a client and 127.0.0.1:`target`; `port` is where it listens. In a thread of its own; use it in `with`.

    weights: how often a connection fares as each of KINDS. delay: every piece that comes back is late by up to
    `delay_s`; cut: the connection ends in the middle of what comes back; swallow: nothing comes back, for ever;
    repeat: what comes back comes twice. `met` counts the connections of each kind
    """

    def __init__(self, target: int, weights: Mapping[str, float], *, seed: int = 0, delay_s: float = 0.05) -> None:
        unknown = set(weights) - set(KINDS)
        if unknown:
            raise ValueError(f"no such fault: {sorted(unknown)}; there are {', '.join(KINDS)}")
        self.met: Counter[str] = Counter()
        self.port = 0
        self._target, self._delay_s = target, delay_s
        self._weights = [weights.get(kind, 0.0) for kind in KINDS]
        self._rng = Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        (kind,) = self._rng.choices(KINDS, self._weights)
        self.met[kind] += 1
        try:
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                await asyncio.gather(_pass(reader, there), self._back(kind, there_reader, writer))
            finally:
                there.close()
        except (OSError, asyncio.CancelledError):
            return
        finally:
            self._tasks.discard(task)
            with suppress(OSError, RuntimeError):
                writer.close()

    async def _back(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if kind == "swallow":
                continue
            if kind == "delay":
                await asyncio.sleep(self._delay_s * self._rng.random())
            if kind == "cut":
                writer.write(data[: self._rng.randrange(len(data))])
                await writer.drain()
                raise ConnectionAbortedError
            writer.write(data)
            await writer.drain()
            if kind == "repeat":
                await asyncio.sleep(self._delay_s * self._rng.choice((0.0, 0.1, 1.0)))  # at once, or much later
                writer.write(data)
                await writer.drain()
        if kind != "swallow":
            writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    writer.close()
