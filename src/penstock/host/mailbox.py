"""What threads of an engine hand to the loop of its host."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from threading import get_ident
from typing import Generic, TypeVar

__all__ = ["Mailbox"]

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """Many writers, one reader. `fileno` becomes readable when there is something to read.

    What the reader's own thread puts in wakes nobody: it looks for itself before it waits again.
    """

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._signalled = False
        self._reader = 0

    def fileno(self) -> int:
        return self._descriptor

    def own(self) -> None:
        """Called by the thread that will read."""
        self._reader = get_ident()

    def put(self, items: Iterable[Item]) -> None:
        self._items.extend(items)
        if not self._signalled and get_ident() != self._reader:
            self._signalled = True
            os.eventfd_write(self._descriptor, 1)

    def take(self) -> list[Item]:
        """Everything that is there, oldest first."""
        items = self._items
        if self._signalled:
            # Cleared before the items are taken: what comes after that signals anew, and nothing is left behind.
            self._signalled = False
            try:
                os.eventfd_read(self._descriptor)
            except BlockingIOError:
                pass  # the writer has set the flag and is about to write: a wake-up too many does no harm
        taken: list[Item] = []
        while items:
            taken.append(items.popleft())
        return taken

    def __bool__(self) -> bool:
        return bool(self._items)
