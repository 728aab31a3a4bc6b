"""Slots that keep an absolute schedule: when each of the mock engine's answers is due.

A request starts in its slot at the later of the slot's scheduled end and its own arrival, and ends its cost later.
A thread that waits for that moment wakes a little late, each time; since the next start is reckoned from the scheduled
end, the lateness never adds up.

    slot   |--- A: 2 ms ---|--- B: 2 ms ---|     scheduled
    answers                 A                B    given, each a little late

One thread sleeps until the earliest end and gives every answer that is due.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush, heapreplace

from penstock.protocol.messages import Answer, AnswerPart

__all__ = ["SlotSchedule"]

_LONGEST_WAIT_S = 3600.0  # a lock can't wait for longer than some years; an hour is short enough for any clock


class SlotSchedule:
    """`give` is called with the answers that are due, from the schedule's own thread.

    More requests than slots queue: each takes the slot that ends first.
    """

    def __init__(self, slots: int, give: Callable[[list[Answer | AnswerPart]], None]) -> None:
        self._slot_ends_s = [0.0] * slots  # heap: the scheduled end of the last request of each slot
        self._running: list[tuple[float, int, Answer | AnswerPart]] = []  # heap by end, then number
        self._number = 0
        self._ticks = 0
        self._give = give
        self._closed = False
        self._changed = threading.Condition()
        threading.Thread(target=self._serve, name="penstock-mock", daemon=True).start()

    def add(
        self, answer: Answer, arrived_s: float, cost_s: float, parts: Sequence[tuple[float, AnswerPart]] = ()
    ) -> None:
        """parts: each with the seconds after the start at which it is given."""
        with self._changed:
            start_s = max(self._slot_ends_s[0], arrived_s)
            heapreplace(self._slot_ends_s, start_s + cost_s)
            before = self._running[0] if self._running else None
            entries: list[tuple[float, Answer | AnswerPart]] = [*parts, (cost_s, answer)]
            for after_s, item in entries:
                self._number += 1
                heappush(self._running, (start_s + after_s, self._number, item))
            if self._running[0] is not before:
                self._changed.notify()  # it comes before all others: the sleeper has to sleep less

    def cancel(self, ids: Sequence[int]) -> None:
        """Forget these; their slots are free from now on."""
        gone = set(ids)
        with self._changed:
            now_s = time.monotonic()
            for end_s, _, item in self._running:
                if isinstance(item, Answer) and item.id in gone and end_s in self._slot_ends_s:
                    self._slot_ends_s[self._slot_ends_s.index(end_s)] = min(end_s, now_s)
            self._running = [entry for entry in self._running if entry[2].id not in gone]
            heapify(self._slot_ends_s)
            heapify(self._running)

    def progress(self) -> int:
        """Grows with every look at a schedule that has something to do: what is in it gets on with time."""
        if self._running:
            self._ticks += 1
        return self._ticks

    def close(self) -> None:
        """Give nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _serve(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                due = self._take_due(time.monotonic())
                if not due:
                    self._sleep()
                    continue
            self._give(due)

    def _take_due(self, now_s: float) -> list[Answer | AnswerPart]:
        due: list[Answer | AnswerPart] = []
        while self._running and self._running[0][0] <= now_s:
            due.append(heappop(self._running)[2])
        return due

    def _sleep(self) -> None:
        if not self._running:
            self._changed.wait()
        else:
            wait_s = self._running[0][0] - time.monotonic()
            if wait_s > 0:
                self._changed.wait(min(wait_s, _LONGEST_WAIT_S))
