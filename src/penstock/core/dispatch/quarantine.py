"""Suspects: requests that were in flight when a replica died. One replica runs them apart until they are cleared.

    death, n in flight ──▶ two halves wait ──▶ a half runs in the lane ──┬── answered: cleared
                               ▲                                         └── death: what was in flight then
                               └───────────────── halved again ◀─────────────────────┘
    a request that kills alone, twice, is at fault

One guilty request of n costs about log2(n) + 2 deaths, and the innocent ones are answered on the way.

The last ready replica of a pool serves: suspects wait for a replica that comes back, which has nothing to lose. Where
none does, they get half of its time at most, the loads after their deaths included, one group a turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence

from penstock.core.dispatch.lanes import SUSPECT, Request
from penstock.core.dispatch.replica import Replica
from penstock.core.dispatch.replica_states import COMING

SOON_S = 2.0  # requests of a dead replica are somebody else's by then, if it is not back itself
OVERDUE_S = 10.0  # later than its last load took: then it is not waited for
SPARE_DEATHS = 4  # in the lane without an answer, beyond what halving takes


class Quarantine:
    """replica: the lane, which runs nothing else while it tries a group. count: suspects that wait.

    fruitless   deaths in the lane since its last answer
    turn_began  when the lane last stopped taking other requests; None while no turn is open
    looked_at   when the dispatcher last decided about the lane
    next_turn   until then the last ready replica of the pool belongs to the other requests
    """

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._replicas = replicas
        self.groups: deque[list[Request]] = deque()
        self.replica: Replica | None = None
        self.count = 0
        self.fruitless = 0
        self.turn_began: float | None = None
        self.next_turn = 0.0
        self.looked_at = 0.0

    def add(self, suspects: list[Request]) -> None:
        """Requests that were in flight at a death elsewhere; tried after those that wait."""
        self.count += len(suspects)
        self.groups.extend(_halves(suspects))

    def halve(self, suspects: list[Request]) -> None:
        """Requests that were in flight at a death in the lane; tried next."""
        self.count += len(suspects)
        self.groups.extendleft(reversed(_halves(suspects)))

    def put_back(self, group: list[Request]) -> None:
        """A group whose replica was ended for another reason: tried again as it is."""
        for request in group:
            request.place = SUSPECT
        if group:
            self.count += len(group)
            self.groups.appendleft(group)

    def take(self, most: int) -> list[Request]:
        """The next group, and no more than `most` of it. After many deaths without an answer the others get a turn:
        if one of them is answered, the replica works."""
        # A poisonous group may stand first: whether the replica works at all, another one shows.
        if self.fruitless > self._patience():
            self.groups.rotate(1)
        group = self.groups.popleft()
        # What waited in the host's queue at a death would be suspect without having run.
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
        # Each group that waits may hold one that kills twice; beyond that it is not the requests.
        return self.fruitless > self._patience() + 2 * len(self.groups)

    def _patience(self) -> int:
        slots = self.replica.slots if self.replica is not None else 1
        return slots.bit_length() + SPARE_DEATHS

    # ------------------------------------------------------------ turns

    def begin_turn(self, now: float) -> None:
        self.turn_began = now

    def close_turn(self, now: float) -> None:
        """A turn costs the others the time until a replica can serve them again: the wait for what the lane had in
        flight, the group, and a load where it died of it. They have the next stretch of that length."""
        # Not while none serves: the load that the death has cost belongs to the turn.
        if self.turn_began is not None and any(each.serves for each in self._replicas):
            self.next_turn = now + (now - self.turn_began)
            self.turn_began = None

    def take_off(self, pause_s: float) -> None:
        """While the pool was paused, for `pause_s`, it was nobody's turn: what of one has passed, and what is left of
        one, are as they were."""
        self.next_turn += pause_s
        if self.turn_began is not None:
            self.turn_began += pause_s

    def must_serve(self, replica: Replica, now: float, *, others_wait: bool) -> bool:
        """Whether the replica is to take other requests before the next group: it is the only one that can."""
        # With nobody to serve there is nothing to share.
        if now >= self.next_turn or not (others_wait or replica.in_flight):
            return False
        return not any(each.serves for each in self._replicas if each is not replica)

    # ------------------------------------------------------------ the lane

    def choose(self, now: float, *, others_wait: bool) -> Replica | None:
        """The lane, where it is ready: one that has nothing to do; or one that comes back, for it has nothing in flight
        then, and the others continue undisturbed; only where none comes the one with the least in flight.

        Once chosen it keeps its suspects through its deaths, so that no other replica dies of them; only where it takes
        long to come back, one that has nothing to do takes its place.
        """
        chosen = self.replica
        ready = [each for each in self._replicas if each.serves]
        if chosen is not None and chosen.serves:
            if chosen.state == "quarantined" or not chosen.in_flight:
                return chosen
            chosen = None  # it serves the others: perhaps another one is better by now
        # Not worth another replica's life: the suspects would hardly be tried sooner.
        if chosen is not None and self._is_soon_back(chosen, now):
            return None
        empty = [] if others_wait else [each for each in ready if not each.in_flight]
        if empty:
            self.replica = empty[0]
        elif chosen is None or not self._is_coming(chosen, now):
            self.replica = self._any(ready, now)
        chosen = self.replica
        return chosen if chosen is not None and chosen.serves else None

    @staticmethod
    def _is_soon_back(replica: Replica, now: float) -> bool:
        return replica.wanted and replica.state in COMING and abs(replica.expected_ready_at() - now) <= SOON_S

    @staticmethod
    def _is_coming(replica: Replica, now: float) -> bool:
        """And not long overdue: it may wait for a device, or for a node that is gone."""
        return replica.wanted and replica.state in COMING and now <= replica.expected_ready_at() + OVERDUE_S

    def _any(self, ready: list[Replica], now: float) -> Replica | None:
        # Not one on its first load: nothing is known of how long that takes.
        coming = [each for each in self._replicas if each.restarts.died_at >= 0 and self._is_coming(each, now)]
        if coming:
            return min(coming, key=lambda each: (each.expected_ready_at(), each.index))
        return min(ready, key=lambda each: (len(each.in_flight), each.index)) if ready else None


def _halves(suspects: list[Request]) -> list[list[Request]]:
    for request in suspects:
        request.place = SUSPECT
    middle = (len(suspects) + 1) // 2
    return [half for half in (suspects[:middle], suspects[middle:]) if half]
