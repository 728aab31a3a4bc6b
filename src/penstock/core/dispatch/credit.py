"""What one replica may be sent and what it has in flight: places, tokens, and the look-ahead that keeps it from running
dry. Whether it may be sent anything at all is its state's to say (`replica.py`)."""

from __future__ import annotations

from collections import defaultdict
from math import ceil, inf

from penstock.core.dispatch.lanes import Request
from penstock.core.shape import DispatchLimits

__all__ = ["Credit"]

_RATE_WINDOW_S = 0.5  # the completion rate is taken over windows of this length
_BURST_DECAY = 0.9  # per window: a wave is remembered for some seconds
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
        self.kept = 0  # and how many are known to have begun, since the host kept them
        self._done = 0
        self._rate_from = 0.0
        self._rate_per_s = 0.0
        self._burst = 0.0

    def grant(self, slots: int, kv_tokens: int, now: float, *, shared: bool) -> None:
        """An engine has said what it has room for. What was learned of the one before does not hold for it."""
        self.slots, self.kv_tokens, self.shared = max(1, slots), kv_tokens, shared
        self.lookahead, self.overhang = 1 + self.slots // 8, 0
        self._done, self._rate_from, self._rate_per_s = 0, now, 0.0

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
        if request.recalled or request.kept:
            self.recalled -= request.recalled
            self.kept -= request.kept
            request.recalled = request.kept = False

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
        self.in_flight, self.held = {}, defaultdict(int)
        self.tokens_in_flight = self.work = self.recalled = self.kept = 0
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
        # The measure was too low, and what it costs is idle slots: up fast, down slowly.
        if starved:
            self.lookahead *= 2
        self.lookahead = min(max(self.lookahead, needed), self.limits.max_lookahead)
