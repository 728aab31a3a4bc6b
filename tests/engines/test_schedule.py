from __future__ import annotations

import threading
import time
from collections.abc import Callable

from penstock.engines.mock.schedule import SlotSchedule
from penstock.protocol.messages import Answer


class Collector:
    """Takes what the schedule gives; `wait` for a number of answers."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._changed = threading.Condition()

    def __call__(self, answers: list[Answer]) -> None:
        with self._changed:
            self.ids += [answer.id for answer in answers]
            self._changed.notify_all()

    def wait(self, count: int) -> list[int]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.ids) >= count, 30)
            return self.ids


def ends_of(schedule: SlotSchedule) -> list[float]:
    return sorted(schedule._slot_ends_s)


def idle(slots: int) -> SlotSchedule:
    """A schedule far in the future, so that nothing is given while it is looked at."""
    return SlotSchedule(slots, lambda answers: None)


FAR_S = time.monotonic() + 1e6


def test_a_slots_next_request_starts_at_the_scheduled_end_of_the_one_before() -> None:
    schedule = idle(1)
    for number in range(1000):
        schedule.add(Answer(number, 1), FAR_S, 0.002)
    assert abs(ends_of(schedule)[0] - (FAR_S + 2.0)) < 1e-6
    schedule.close()


def test_an_arrival_after_the_end_starts_then() -> None:
    schedule = idle(1)
    schedule.add(Answer(1, 1), FAR_S, 0.5)
    schedule.add(Answer(2, 1), FAR_S + 10, 0.5)
    assert ends_of(schedule) == [FAR_S + 10.5]
    schedule.close()


def test_a_request_takes_the_slot_that_ends_first() -> None:
    schedule = idle(2)
    for number, cost_s in enumerate([5.0, 1.0, 1.0, 1.0]):
        schedule.add(Answer(number, 1), FAR_S, cost_s)
    assert ends_of(schedule) == [FAR_S + 3.0, FAR_S + 5.0]
    schedule.close()


def test_answers_come_in_the_order_of_their_ends() -> None:
    collect = Collector()
    schedule = SlotSchedule(3, collect)
    now_s = time.monotonic()
    for number, cost_s in [(1, 0.03), (2, 0.01), (3, 0.02)]:
        schedule.add(Answer(number, 1), now_s, cost_s)
    assert collect.wait(3) == [2, 3, 1]
    schedule.close()


def test_what_is_cancelled_never_comes_and_frees_its_slot() -> None:
    collect = Collector()
    schedule = SlotSchedule(1, collect)
    schedule.add(Answer(1, 1), time.monotonic(), 3600.0)
    schedule.cancel([1, 99])
    schedule.add(Answer(2, 1), time.monotonic(), 0.001)
    assert collect.wait(1) == [2]
    schedule.close()


def test_progress_grows_only_while_something_runs() -> None:
    schedule = idle(1)
    look: Callable[[], int] = schedule.progress
    assert look() == look() == 0
    schedule.add(Answer(1, 1), FAR_S, 1.0)
    assert look() < look()
    schedule.close()
