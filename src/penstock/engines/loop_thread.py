"""An asyncio loop in a thread of its own, with one task per request, for engines that are asynchronous themselves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

__all__ = ["LoopThread"]


class LoopThread(threading.Thread):
    """`begin` and `end` are called in this thread, the others in any other one."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by the id of their request

    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        super().start()

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def result(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What it returns, or raises."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def begin(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[number] = self.loop.create_task(work)

    def end(self, number: int) -> bool:
        """Called by the task of a request before it answers. False: it was cancelled, or replaced."""
        mine = self._tasks.get(number) is asyncio.current_task()
        if mine:
            del self._tasks[number]
        return mine

    def cancel(self, numbers: Sequence[int]) -> None:
        self.loop.call_soon_threadsafe(self._cancel, list(numbers))

    def _cancel(self, numbers: list[int]) -> list[asyncio.Task[None]]:
        tasks = [self._tasks.pop(number) for number in numbers if number in self._tasks]
        for task in tasks:
            task.cancel()
        return tasks

    async def _cancel_all(self) -> None:
        await asyncio.gather(*self._cancel(list(self._tasks)), return_exceptions=True)

    def cancel_all(self) -> None:
        """Blocks until all tasks have ended."""
        if self.is_alive():
            self.result(self._cancel_all())

    def close(self) -> None:
        if self.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.join()
            self.loop.close()
