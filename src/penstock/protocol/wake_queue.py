"""A queue from threads to a thread that waits on descriptors: its descriptor is readable while it has items."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from threading import RLock, get_ident
from typing import Generic, TypeVar

__all__ = ["WakeQueue"]

Item = TypeVar("Item")


class WakeQueue(Generic[Item]):
    """Many writers, one reader: it selects on `fileno()`, and then calls `take`. A wake-up for nothing is possible, a
    missing one is not."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._readable = False  # changes together with the descriptor, under the lock
        self._reader = 0
        self._closed = False
        self._lock = RLock()  # a signal handler may wake in the middle of a wake

    def fileno(self) -> int:
        return self._descriptor

    def own(self) -> None:
        """Called by the reader, if it puts items in as well: these wake nobody, since it looks before it waits."""
        self._reader = get_ident()

    def put(self, item: Item) -> None:
        self._items.append(item)
        if not self._readable and get_ident() != self._reader:
            self.wake()

    def put_all(self, items: Iterable[Item]) -> None:
        self._items.extend(items)
        if not self._readable and get_ident() != self._reader:
            self.wake()

    def wake(self) -> None:
        """Wake the reader, whether or not there is an item for it. Safe in a signal handler."""
        with self._lock:
            if not self._readable and not self._closed:  # closed: the descriptor may be another's by now
                os.eventfd_write(self._descriptor, 1)
                self._readable = True

    def take(self) -> list[Item]:
        """Everything that is there, oldest first."""
        if self._readable:
            # Before the items are taken: a writer that still found it readable has put its item in already.
            with self._lock:
                if not self._closed:
                    os.eventfd_read(self._descriptor)
                self._readable = False
        items, taken = self._items, []
        while items:
            taken.append(items.popleft())
        return taken

    def __bool__(self) -> bool:
        return bool(self._items)

    def close(self) -> None:
        """Further items are kept, but do not wake the reader."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._descriptor)
