"""Clocks of a run: seconds since the process started, on a clock that never goes back."""

from __future__ import annotations

import os
import time


def process_age_s() -> float:
    """How long this process has existed, in seconds (Linux: field 22 of /proc/self/stat, to 10 ms)."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError):
        return 0.0


class RunClock:
    """`now()`: seconds since `age_s` before it was made."""

    def __init__(self, age_s: float = 0.0) -> None:
        self._zero = time.monotonic() - age_s

    def now(self) -> float:
        return time.monotonic() - self._zero
