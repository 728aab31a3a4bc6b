"""A limit on the time of one call of a user's function, in the main thread.

Three layers, from the friendly to the blunt:

1. SIGALRM raises in the function after `limit_s`. That ends Python code and what a signal interrupts (sleeps, reads).
2. C code that checks no signal continues. A thread sees that `grace_s` later and reports the call as over time
   (`on_stuck`); the process has then to be replaced.
3. C code that holds the interpreter stops that thread too, and the heartbeats with it: the coordinator's own limit
   on silence ends the replica.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["OverTime", "TimeLimit"]

_GRACE_S = 2.0  # for a function that cleans up when it is interrupted
_REPEAT_S = 1.0  # the alarm rings again: a bare `except:` may have swallowed the first


class OverTime(BaseException):
    """Raised inside a function that ran too long. No Exception, so that `except Exception` lets it pass."""


class TimeLimit:
    """`call` runs a function under the limit; only in the main thread. The user's functions can't use SIGALRM."""

    def __init__(self, limit_s: float, on_stuck: Callable[[], None], grace_s: float = _GRACE_S) -> None:
        self._limit_s = limit_s
        self._stuck_after_s = limit_s + grace_s
        self._on_stuck = on_stuck
        self._began_s = 0.0  # 0: no call is running
        signal.signal(signal.SIGALRM, self._ring)
        threading.Thread(target=self._watch, args=(min(grace_s / 4, 0.5),), name="penstock-limit", daemon=True).start()

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """What the function returns or raises; OverTime when it took longer than the limit."""
        self._began_s = time.monotonic()
        try:
            signal.setitimer(signal.ITIMER_REAL, self._limit_s, _REPEAT_S)
            return function(argument)
        finally:
            self._began_s = 0.0
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if self._began_s:  # else the call ended while the signal was on its way
            raise OverTime

    def _watch(self, period_s: float) -> None:
        while True:
            time.sleep(period_s)
            began_s = self._began_s
            if began_s and time.monotonic() - began_s > self._stuck_after_s:
                self._on_stuck()
                return
