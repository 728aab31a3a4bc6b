"""How fast a replica works, beside others on devices like its own: one that falls far behind is replaced.

A device may throttle, share its bus or belong to another process as well. Its replica still gets no more than it does,
but whatever it holds ends late. All replicas of a kind are measured over one common window, by what they have answered
in it: `rate` is work (prompt tokens, and output tokens times OUTPUT_TOKEN_WORK) a second of the time in which there was
something to do, `speed` is work a second for each request in flight. Slow is only who is far behind in both. A replica
that was given little has a low rate; one with many requests at a time has a low speed; neither is slow.

What makes the comparison fair: work is seen when it is done, so a window ends only when every place of every replica
has turned over some times; and all had the same time, with the same requests waiting. So it restarts when one of
them comes, goes, or tries suspects apart, and when time has passed that nobody looked at (the whole run was suspended).
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.core.dispatch.replica import Replica
from penstock.core.shape import DispatchLimits

_UNSEEN_S = 5.0  # between two looks: somebody was asleep


class PeerGroup:
    """Replicas of one pool that are to be equally fast, and the window over which they are compared."""

    def __init__(self, replicas: Sequence[Replica], limits: DispatchLimits) -> None:
        self._replicas = replicas
        self._limits = limits
        self._members: list[tuple[int, int]] = []  # replicas and their incarnations
        self._since = self._looked_at = 0.0

    def slow_ones(self, now: float) -> list[tuple[Replica, float]]:
        """Those whom the window has just shown far behind the median, with the share of it that they reach."""
        serving = [replica for replica in self._replicas if replica.state == "ready"]
        members = [(replica.index, replica.incarnation) for replica in serving]
        unseen, self._looked_at = now - self._looked_at, now
        # A window in which one was away, or nobody looked, compares what did not happen side by side.
        if members != self._members or unseen > _UNSEEN_S:
            self._members = members
            self._begin(serving, now)
            return []
        # One alone has no peer: as the last that serves it would be replaced for what the others were.
        if len(serving) < 2 or now - self._since < self._limits.slow_window_s:
            return []
        # Work is seen when it is done: before each place has turned over, long requests look like slow replicas.
        if not all(map(self._has_turned_over, serving)):
            return []
        for replica in serving:
            replica.pace.advance(len(replica.in_flight), now)
        rates, speeds = ([getattr(each.pace, name) for each in serving] for name in ("rate", "speed"))
        found = []
        for replica, rate, speed in zip(serving, rates, speeds, strict=True):
            # The better of the two: few requests make a low rate, many at a time make a low speed; neither is slow.
            share = max(rate / max(_median(rates), 1e-9), speed / max(_median(speeds), 1e-9))
            if share >= self._limits.slow_share:
                replica.times_slow = 0
            # With nothing in flight it was the pool that had no work.
            elif replica.in_flight:
                found.append((replica, share))
        self._begin(serving, now)
        return found

    def _begin(self, serving: Sequence[Replica], now: float) -> None:
        self._since = now
        for replica in serving:
            replica.pace.begin(now)

    def _has_turned_over(self, replica: Replica) -> bool:
        places = replica.slots + replica.lookahead
        return replica.pace.answers >= max(self._limits.slow_answers, self._limits.slow_turns * places)


def _median(values: list[float]) -> float:
    """The upper one of an even number: of two replicas the faster one is the measure."""
    return sorted(values)[len(values) // 2]
