"""What one replica may be sent and what it has in flight: places, tokens, and the look-ahead that keeps it from running
dry. Whether it may be sent anything at all is its state's to say (`replica.py`)."""

from __future__ import annotations

from collections import defaultdict
from math import ceil, inf

from penstock.core.dispatch.lanes import Request
from penstock.core.shape import DispatchLimits

_DECAY_PER_S = 0.8  # a wave is remembered for some seconds
_HEADROOM = 1.5  # look-ahead over what the measured turnaround needs


class Credit:
    """in_flight: requests sent and not ended, in the order of sending. lookahead: requests beyond the engine's slots
    that may wait in its host. held: requests in flight by class."""

    def __init__(self, limits: DispatchLimits) -> None:
        self.limits = limits
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
        self.started = 0  # and how many the host had started when they were to be returned
        self._done = 0
        self._since = 0.0
        self._most = 0.0  # requests that ended within one turnaround

    def grant(self, slots: int, kv_tokens: int, now: float, *, shared: bool) -> None:
        """An engine has said what it has room for. What was learned of the one before does not hold for it."""
        self.slots, self.kv_tokens, self.shared = max(1, slots), kv_tokens, shared
        self.lookahead, self.overhang = 1 + self.slots // 8, 0
        self._done, self._since, self._most = 0, now, float(self.slots // 8)

    def resize(self, slots: int) -> None:
        self.slots = max(1, slots)
        self.overhang = len(self.in_flight)

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
        if request.recalled or request.started:
            self.recalled -= request.recalled
            self.started -= request.started
            request.recalled = request.started = False

    def fits(self, cost: int) -> bool:
        """Whether `cost` more tokens go in. An idle replica takes anything: too long is for its engine to say."""
        return cost <= self.token_room()

    def token_room(self) -> float:
        """How costly a request may be to fit."""
        # Else a request larger than the estimate of its replica's room would wait for ever.
        if not self.in_flight:
            return inf
        if not self.kv_tokens:
            return 0.0 if self.holds_enough() else inf
        return self._most_tokens() - self.tokens_in_flight

    def holds_enough(self) -> bool:
        """Whether what is in flight would take up the memory of its host if there were more of it."""
        return self.tokens_in_flight >= self.limits.most_tokens_out

    def _most_tokens(self) -> float:
        # A little more than the cache holds, so that the engine never waits for a request to travel.
        return self.kv_tokens * min(1.0 + self.lookahead / self.slots, 1.25)

    def refund_all(self) -> list[Request]:
        requests = list(self.in_flight.values())
        for request in requests:
            request.recalled = request.started = False
        self.in_flight, self.held = {}, defaultdict(int)
        self.tokens_in_flight = self.work = self.recalled = self.started = 0
        return requests

    # ------------------------------------------------------------ look-ahead

    def measure(self, done: int, turnaround_s: float, now: float) -> None:
        """Size the look-ahead so that the engine's queue does not run dry while an answer travels here and back, and
        no further: what waits in a host is out of sight, and the work of an idle replica, or in a higher class's way.

        It covers the most requests that ended lately within one turnaround (as the host measures it). Up to as many as
        there are slots that is a wave: requests of like length begin and end together, and there can't be more of them.
        Beyond it is a rate, which a look-ahead that is too short would hold down: then half as much again, so that an
        engine that ran dry is measured faster after each turnaround until it does not.
        """
        self._done += done
        most, elapsed = float(min(done, self.slots)), now - self._since
        if elapsed >= turnaround_s and elapsed > 0.0:
            most = max(most, self._done * turnaround_s / elapsed)
            self._most *= _DECAY_PER_S**elapsed
            self._done, self._since = 0, now
        self._most = max(self._most, most)
        needed = ceil(self._most * (_HEADROOM if self._most > self.slots else 1.0) - 1e-9) + 1
        self.lookahead = min(needed, self.limits.max_lookahead)
