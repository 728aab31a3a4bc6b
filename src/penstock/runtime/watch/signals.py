"""SIGINT and SIGTERM: once, the run stops cleanly; twice, immediately."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from penstock.runtime.inbox import Inbox

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopNow(BaseException):
    """The second signal: end without waiting for anything. What is committed stays."""


class Interrupts:
    """Catches the signals while a run lasts. Outside the main thread there is nothing to catch."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._count = 0
        self._reported = False
        self._before: dict[int, Any] = {}
        self._thread: int | None = None  # that runs the handlers
        self._abandoned: Exception | None = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._thread = threading.get_ident()
            self._before = {number: signal.signal(number, self._caught) for number in _SIGNALS}
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread = None
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def abandon(self, error: Exception) -> None:
        """Raise `error` in the run's thread, wherever that is. Called by another thread, when the loop is blocked."""
        thread = self._thread
        if thread is not None:
            self._abandoned = error
            signal.pthread_kill(thread, signal.SIGINT)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        error, self._abandoned = self._abandoned, None
        if error is not None:
            raise error
        self._count += 1
        self._inbox.wake()

    @property
    def asked(self) -> bool:
        """Whether a signal has come, reported or not."""
        return self._count > 0

    def repeat(self) -> None:
        """A phase begins: a signal that the previous phase received as it ended is for this one."""
        self._reported = False

    def pending(self) -> str:
        """The status that a phase is to stop with, returned once; "" otherwise. Raises StopNow at the second signal."""
        if self._count >= 2:
            raise StopNow
        if self._count and not self._reported:
            self._reported = True
            return "stopped"
        return ""
