"""Suspects: requests that were in flight when a replica died. One replica runs them apart until they are cleared.

    death, n in flight ──▶ two halves wait ──▶ a half runs in the lane ──┬── answered: cleared
                               ▲                                         └── death: what was in flight then
                               └───────────────── halved again ◀─────────────────────┘
    a request that kills alone, twice, is at fault

One guilty request of n costs about log2(n) + 2 deaths, and the innocent ones are answered on the way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence

from penstock.core.dispatch.lanes import SUSPECT, Request
from penstock.core.dispatch.replica import Replica

__all__ = ["Quarantine"]

_COMING = frozenset(("starting", "waiting", "killed", "waking"))
SOON_S = 2.0  # requests of a dead replica are somebody else's by then, if it is not back itself
OVERDUE_S = 10.0  # later than its last load took: then it is not waited for
SPARE_DEATHS = 4  # in the lane without an answer, beyond what halving takes


class Quarantine:
    """replica: the lane, which runs nothing else while groups wait. count: suspects that wait.

    fruitless: deaths in the lane since its last answer
    """

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._replicas = replicas
        self.groups: deque[list[Request]] = deque()
        self.replica: Replica | None = None
        self.count = 0
        self.fruitless = 0

    def add(self, suspects: list[Request]) -> None:
        """Requests that were in flight at a death elsewhere; tried after those that wait."""
        self.count += len(suspects)
        self.groups.extend(_halves(suspects))

    def halve(self, suspects: list[Request]) -> None:
        """Requests that were in flight at a death in the lane; tried next."""
        self.count += len(suspects)
        self.groups.extendleft(reversed(_halves(suspects)))

    def take(self, most: int) -> list[Request]:
        """The next group, and no more than `most` of it. After many deaths without an answer the others get a turn:
        if one of them is answered, the replica works."""
        if self.fruitless > self._patience():
            self.groups.rotate(1)
        group = self.groups.popleft()
        if len(group) > most:
            self.groups.appendleft(group[most:])
            group = group[:most]
        self.count -= len(group)
        return group

    def requests(self) -> Iterable[Request]:
        return (request for group in self.groups for request in group)

    def remove(self, tasks: Collection[int]) -> None:
        kept = [[request for request in group if request.task not in tasks] for group in self.groups]
        self.groups = deque(group for group in kept if group)
        self.count = sum(map(len, self.groups))

    def died(self) -> bool:
        """A death in the lane; whether the replica itself is to blame, since nothing at all works on it."""
        self.fruitless += 1
        return self.fruitless > self._patience() + 2 * len(self.groups)

    def _patience(self) -> int:
        slots = self.replica.slots if self.replica is not None else 1
        return slots.bit_length() + SPARE_DEATHS

    def choose(self, now: float, *, others_wait: bool) -> Replica | None:
        """The lane, where it is ready: one that has nothing to do; or the replica that died, if it is back soon, for it
        has nothing in flight then, and the others go on undisturbed; else the one with the least in flight.

        Once chosen it keeps its suspects through its deaths, so that no other replica dies of them; only where it takes
        long to come back, one that has nothing to do takes its place.
        """
        chosen = self.replica
        if chosen is not None and chosen.state == "ready":
            return chosen
        if chosen is not None and self._is_soon_back(chosen, now):
            return None
        idle = [] if others_wait else [each for each in self._replicas if each.state == "ready" and not each.in_flight]
        if idle:
            self.replica = idle[0]
        elif chosen is None or not self._is_coming(chosen, now):
            self.replica = self._any(now)
        chosen = self.replica
        return chosen if chosen is not None and chosen.state == "ready" else None

    @staticmethod
    def _is_soon_back(replica: Replica, now: float) -> bool:
        return replica.state in _COMING and abs(replica.expected_ready_at() - now) <= SOON_S

    @staticmethod
    def _is_coming(replica: Replica, now: float) -> bool:
        """And not long overdue: it may wait for a device, or for a node that is gone."""
        return replica.state in _COMING and now <= replica.expected_ready_at() + OVERDUE_S

    def _any(self, now: float) -> Replica | None:
        ready = [each for each in self._replicas if each.state == "ready"]
        coming = [each for each in self._replicas if each.died_at >= 0 and self._is_coming(each, now)]
        if coming:
            soonest = min(coming, key=lambda each: (each.expected_ready_at(), each.index))
            if not ready or self._is_soon_back(soonest, now):
                return soonest
        return min(ready, key=lambda each: (len(each.in_flight), each.index)) if ready else None


def _halves(suspects: list[Request]) -> list[list[Request]]:
    for request in suspects:
        request.place = SUSPECT
    middle = (len(suspects) + 1) // 2
    return [half for half in (suspects[:middle], suspects[middle:]) if half]
