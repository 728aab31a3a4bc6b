"""Where threads leave events for the loop, and what wakes it up."""

from __future__ import annotations

import os
import threading
from collections import deque

from penstock.core.events import Event


class Inbox:
    """Any thread may `put`; the loop selects on `fileno()` and then calls `take`."""

    def __init__(self) -> None:
        self._events: deque[Event | BaseException] = deque()
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._closed = False
        self._lock = threading.RLock()  # a signal handler may wake in the middle of a wake

    def fileno(self) -> int:
        return self._read

    def put(self, item: Event | BaseException) -> None:
        """An event; or an exception, which ends the run where the loop takes it."""
        self._events.append(item)
        self.wake()

    def wake(self) -> None:
        with self._lock:
            if self._closed:
                return  # a thread that was left behind: the descriptor may be another's by now
            try:
                os.write(self._write, b"\0")
            except BlockingIOError:
                pass  # a full pipe wakes as well

    def take(self) -> list[Event]:
        """All events so far. Raises the first exception that a thread left."""
        try:
            os.read(self._read, 4096)
        except BlockingIOError:
            pass
        found: list[Event] = []
        while self._events:
            item = self._events.popleft()
            if isinstance(item, BaseException):
                raise item
            found.append(item)
        return found

    def close(self) -> None:
        with self._lock:
            self._closed = True
            os.close(self._read)
            os.close(self._write)
