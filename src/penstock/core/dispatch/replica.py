"""One replica as the dispatcher sees it: its state (`states.py`), its credit, and the look-ahead that keeps it from
running dry. Deaths and memory are in `restarts.py`, signs of life in `liveness.py`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from math import ceil, inf

from penstock.core.dispatch.lanes import Request
from penstock.core.dispatch.liveness import Liveness
from penstock.core.dispatch.pace import Pace
from penstock.core.dispatch.restarts import MemoryShare, Restarts
from penstock.core.dispatch.states import ANSWERS, SERVES, TRANSITIONS, Ending
from penstock.core.shape import DispatchLimits, ReplicaShape
from penstock.errors import InvariantError

__all__ = ["IDLE_FIRST", "MOST_WORK", "Replica"]

IDLE_FIRST = 1 << 24  # more than any spare credit
MOST_WORK = 1 << 31  # more than any replica is sent
_RATE_WINDOW_S = 0.5  # the completion rate is taken over windows of this length
_BURST_DECAY = 0.9  # per window: a wave is remembered for some seconds
_HEADROOM = 1.5  # look-ahead over what the measured turnaround needs


class Replica:
    """in_flight: requests sent and not ended, in the order of sending. lookahead: requests beyond the engine's slots
    that may wait in its host. held: requests in flight by class. spare(): how many more of a class it may be sent."""

    def __init__(
        self,
        index: int,
        shape: ReplicaShape,
        limits: DispatchLimits,
        broken: Callable[[str], InvariantError] = InvariantError,
    ) -> None:
        self.index = index
        self.shape = shape
        self.limits = limits
        self.state = "off"
        self.wanted = True  # False: it was removed from its pool
        self.incarnation = 0
        self.slots = 0
        self.kv_tokens = 0
        self.shared = False  # its slots share one device: more requests at once slow each other down
        self.lookahead = 1
        self.overhang = 0  # requests that were in flight when its slots became fewer, and still are
        self.in_flight: dict[int, Request] = {}
        self.held: dict[int, int] = defaultdict(int)
        self.tokens_in_flight = 0
        self.work = 0  # of what is in flight, see lanes.Request
        self.counted = (0, 0, 0)  # what its pool has counted of it
        self.recalled = 0  # of those in flight, how many a TakeBack is out for
        self.kept = 0  # and how many are known to have begun, since the host kept them
        self.trying = 0  # suspects of the group that it was given
        self.alone = -1  # the one suspect of a group of one
        self.ending_because: Ending = ""
        self.times_slow = 0  # windows in a row
        self.liveness = Liveness(shape, limits)
        self.restarts = Restarts(limits)
        self.memory = MemoryShare(limits)
        self.pace = Pace()
        self._broken = broken
        self._done = 0
        self._rate_from = 0.0
        self._rate_per_s = 0.0
        self._burst = 0.0

    def can(self, event: str) -> bool:
        """Whether the table has a transition from here: for what comes from outside, in whatever order."""
        return event in TRANSITIONS[self.state]

    def move(self, event: str) -> None:
        """Take the transition. Raises InvariantError, with the story, where the table has none from here: what was
        decided from a wrong idea of the state must not reach a host."""
        following = TRANSITIONS[self.state].get(event)
        if following is None:
            raise self._broken(f"{self.shape.name} is {self.state}: {event} is impossible")
        self.state = following

    def join(self, shape: ReplicaShape) -> None:
        """It was removed, and is in its pool again, perhaps elsewhere: nothing is known of it."""
        self.shape = shape
        self.wanted, self.times_slow = True, 0
        self.liveness = Liveness(shape, self.limits)
        self.restarts = Restarts(self.limits)
        self.memory = MemoryShare(self.limits)

    def resize(self, slots: int) -> None:
        self.slots = max(1, slots)
        self.overhang = len(self.in_flight)

    @property
    def answers(self) -> bool:
        return self.state in ANSWERS

    @property
    def serves(self) -> bool:
        return self.state in SERVES

    def spare(self, priority: int) -> int:
        """Places that a class may still take. Every class may take every place; one that places are kept free for has
        the others' `held` to tell how many they may still take."""
        if self.state != "ready":
            return 0
        return self.slots + self.lookahead - len(self.in_flight)

    def rank(self, priority: int, *, by_work: bool = False) -> int:
        """Who gets the next request of a class: who has idle slots before who would only queue it, then the most spare
        credit, or with `by_work` the least work in flight. 0 where nothing may be sent.

        Without the first rule a long look-ahead would draw requests away from idle slots.
        """
        spare = self.spare(priority)
        if spare <= self.lookahead:
            return max(spare, 0)
        return IDLE_FIRST + (MOST_WORK - min(self.work, MOST_WORK) if by_work else spare)

    def charge(self, request: Request) -> None:
        """It is sent: it holds a place of its class, tokens and work until `refund`."""
        self.in_flight[request.task] = request
        self.held[request.priority] += 1
        self.tokens_in_flight += request.cost
        self.work += request.work

    def refund(self, request: Request) -> None:
        """It is not in flight here any more, for whatever reason."""
        del self.in_flight[request.task]
        self.held[request.priority] -= 1
        self.tokens_in_flight -= request.cost
        self.work -= request.work
        if request.recalled or request.kept:
            self.recalled -= request.recalled
            self.kept -= request.kept
            request.recalled = request.kept = False

    def fits(self, cost: int) -> bool:
        """Whether `cost` more tokens go in. An idle replica takes anything: too long is for its engine to say."""
        return cost <= self.token_room()

    def token_room(self) -> float:
        """How costly a request may be to fit."""
        if not self.in_flight:
            return inf
        if not self.kv_tokens:
            return 0.0 if self.holds_enough() else inf
        return self._most_tokens() - self.tokens_in_flight

    def holds_enough(self) -> bool:
        """Whether what is in flight would take up the memory of its host if there were more of it."""
        return self.tokens_in_flight >= self.limits.most_tokens_out

    def _most_tokens(self) -> float:
        return self.kv_tokens * min(1.0 + self.lookahead / self.slots, 1.25)

    def count(self) -> tuple[int, int, int]:
        """Requests that must be waiting in the host and were not called back yet; slots that are idle; recalls out."""
        if not self.answers:
            return (0, 0, 0)
        out = len(self.in_flight)
        idle = max(0, self.slots - out) if self.state == "ready" else 0
        return (max(0, out - max(self.slots, self.kept) - self.recalled), idle, self.recalled)

    def became_ready(self, slots: int, kv_tokens: int, now: float, *, shared: bool = False) -> None:
        self.slots, self.kv_tokens, self.shared = max(1, slots), kv_tokens, shared
        self.lookahead = 1 + self.slots // 8
        self.restarts.became_ready(now)
        self.liveness.serves(now)
        self._done, self._rate_from, self._rate_per_s = 0, now, 0.0

    def take_all(self) -> list[Request]:
        """Everything in flight; nothing is in flight afterwards."""
        requests = list(self.in_flight.values())
        self.in_flight, self.held = {}, defaultdict(int)
        self.tokens_in_flight = self.work = self.recalled = self.kept = 0
        self.trying, self.alone = 0, -1
        return requests

    # ------------------------------------------------------------ look-ahead

    def measure(self, done: int, turnaround_s: float, *, starved: bool, now: float) -> None:
        """Size the look-ahead so that the engine's queue does not run dry while an answer travels here and back.

        It covers completion rate x turnaround (measured by the host) x 1.5, and the most slots that came free at once
        lately: requests of like length begin and end together, and each such wave would wait for a turnaround. It
        doubles when the engine ran dry although requests were waiting, and falls back slowly.
        """
        self._done += done
        self._burst = max(self._burst, float(min(done, self.slots)))
        needed = ceil(self._burst) + 1
        elapsed = now - self._rate_from
        if elapsed >= _RATE_WINDOW_S:
            self._rate_per_s = self._done / elapsed
            self._done, self._rate_from = 0, now
            self._burst *= _BURST_DECAY
            needed = max(needed, ceil(self._rate_per_s * turnaround_s * _HEADROOM) + 1)
            self.lookahead = max(needed, self.lookahead * 3 // 4)
        if starved:
            self.lookahead *= 2
        self.lookahead = min(max(self.lookahead, needed), self.limits.max_lookahead)

    # ------------------------------------------------------------ liveness

    def saw(self, progress: int, executing: int, now: float) -> None:
        self.liveness.saw(progress, executing, now, owes=bool(self.in_flight))

    def progress_deadline(self) -> float | None:
        """When it counts as hung unless it makes progress; None when it owes none."""
        if self.state in ("starting", "waking"):
            return self.liveness.load_deadline()
        if self.state == "falling_asleep":
            return self.liveness.sleep_deadline()
        return self.liveness.work_deadline() if self.answers and self.in_flight else None

    def expected_ready_at(self) -> float:
        """When a replica that died will be back, if it loads as long as before."""
        restarts = self.restarts
        return (restarts.start_at if self.state == "waiting" else restarts.started_at) + restarts.load_s
