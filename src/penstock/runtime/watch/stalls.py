"""What takes too long: a thread of its own looks, once a second, at what the reader, the writer and the loop are doing.

It counts seconds by its own looks, not by a clock: a process that was suspended (Ctrl-Z) has not waited meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["LOOK_S", "Activity", "Stalls", "cpu_ns"]

LOOK_S = 1.0


class Activity:
    """Something that may not come back, done again and again by one thread.

    describe   the message after so many seconds
    patience_s, limit_s  from when on it is said; and when `over` is called, once. None: never
    work       grows while it is at work, however long one turn of it takes: seeking in a large file is no stall
    """

    def __init__(
        self,
        describe: Callable[[int], str],
        *,
        patience_s: float | None = None,
        limit_s: float | None = None,
        over: Callable[[int], None] | None = None,
        work: Callable[[], int] = lambda: 0,
    ) -> None:
        self.describe, self.patience_s, self.limit_s, self.over, self.work = describe, patience_s, limit_s, over, work
        self.looks = 0
        self._turn = 0  # odd while it is being done
        self._seen = (0, 0)

    def begin(self) -> None:
        """It starts, or restarts if it was in progress."""
        self._turn += 2 if self._turn % 2 else 1

    def end(self) -> None:
        self._turn += self._turn % 2

    def look(self) -> float:
        """How long the same turn of it has lasted without any work, judged by how often it was looked at."""
        seen = self._turn, self.work()
        self.looks = self.looks + 1 if seen[0] % 2 and seen == self._seen else 0
        self._seen = seen
        return self.looks * LOOK_S


def cpu_ns(native_id: int | None) -> int:
    """What a thread of this process has had of a CPU, in nanoseconds; 0 where that is unknown."""
    try:
        with open(f"/proc/self/task/{native_id}/schedstat", "rb") as file:
            return int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


class Stalls:
    """`note`: where it is said, once for each time that something takes long."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._activities: list[Activity] = []
        self._slow: list[str] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="penstock-stalls", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, activity: Activity) -> None:
        self._activities.append(activity)

    def remove(self, activity: Activity) -> None:
        self._activities.remove(activity)

    def describe(self) -> str:
        """What takes long just now, in words; "" where nothing does."""
        return "; ".join(self._slow)

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(LOOK_S)

    def _work(self) -> None:
        while not self._closing.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        slow: list[str] = []
        for activity in tuple(self._activities):
            seconds = activity.look()
            if activity.patience_s is not None and seconds >= activity.patience_s:
                slow.append(activity.describe(int(seconds)))
                if seconds - LOOK_S < activity.patience_s:
                    self._note(slow[-1])
            if activity.limit_s is not None and activity.limit_s <= seconds < activity.limit_s + LOOK_S:
                assert activity.over is not None
                activity.over(int(seconds))
        self._slow = slow
