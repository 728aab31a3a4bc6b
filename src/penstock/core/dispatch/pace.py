"""How fast a replica works, beside others on devices like its own: one that falls far behind is replaced.

A device may throttle, share its bus or belong to another process as well. Its replica still gets no more than it does,
but whatever it holds ends late. It is measured over windows, by its answers: `rate` is work (see lanes.Request) a
second, `speed` is work a second for each request in flight. Slow is only who is behind in both. A replica that was
given little has a low rate; one with many requests at a time has a low speed; neither is slow. And who has hardly
answered is not judged, since its requests may be long: what makes no progress at all is a hang (`replica.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from penstock.core.dispatch.lanes import OUTPUT_TOKEN_WORK

if TYPE_CHECKING:
    from penstock.core.dispatch.replica import Replica
    from penstock.core.events import AnswersArrived
    from penstock.core.shape import DispatchLimits

__all__ = ["Pace", "slow_ones"]


class Pace:
    """rate, speed: of the window before this one; 0: there was none."""

    def __init__(self) -> None:
        self.rate = self.speed = 0.0
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """Another window."""
        self._since = self._at = now
        self._work = self._answers = 0
        self._held_s = 0.0  # in flight, summed over requests

    def forget(self, now: float) -> None:
        """Another process: nothing is known of it."""
        self.rate = self.speed = 0.0
        self.begin(now)

    def wakes(self, now: float) -> None:
        """It has something to do again."""
        self._at = now

    def answered(self, event: AnswersArrived, in_flight: int, now: float) -> None:
        """`in_flight`: requests that it has had until now."""
        self._held_s += in_flight * (now - self._at)
        self._at = now
        self._work += sum(event.tokens_in) + OUTPUT_TOKEN_WORK * sum(event.tokens_out)
        self._answers += len(event.tasks)

    def closes(self, limits: DispatchLimits, now: float) -> bool:
        """Whether a window has come to its end: long enough, with enough answers to tell."""
        span = now - self._since
        if span < limits.slow_window_s or self._answers < limits.slow_answers:
            return False
        work = max(self._work, 1)
        self.rate, self.speed = work / span, work / max(self._held_s, 1e-9)
        self.begin(now)
        return True


def slow_ones(replicas: Iterable[Replica], limits: DispatchLimits, now: float) -> list[tuple[Replica, float]]:
    """Replicas whose window has just shown them far behind the median of their like, with the share that they reach."""
    serving = [replica for replica in replicas if replica.shape.like >= 0 and replica.state == "ready"]
    judged = [r for r in serving if r.in_flight and not r.solo and r.pace.closes(limits, now)]
    found = []
    for like in sorted({replica.shape.like for replica in judged}):
        known = [replica.pace for replica in serving if replica.shape.like == like and replica.pace.rate]
        if len(known) > 1:
            rate, speed = _median([pace.rate for pace in known]), _median([pace.speed for pace in known])
            shares = (
                (replica, max(replica.pace.rate / rate, replica.pace.speed / speed))
                for replica in judged
                if replica.shape.like == like
            )
            found += [(replica, share) for replica, share in shares if share < limits.slow_share]
    return found


def _median(values: list[float]) -> float:
    """The upper one of an even number: of two replicas the faster one is the measure."""
    return sorted(values)[len(values) // 2]
