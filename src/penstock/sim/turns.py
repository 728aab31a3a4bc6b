"""The time that suspects take from the last ready replica of a pool, judged outside the core.

A turn lasts from the send of a group of suspects until a replica can serve others again: the group is answered, or the
replica died of it and one of the pool is ready. The next has to leave the others as much time, where they wait and
nothing else can serve them. The time in which the pool is paused is nobody's.
"""

from __future__ import annotations

from msgspec import Struct

from penstock.sim.violations import Violation

__all__ = ["SimTurns"]

_ROUNDING_S = 1e-6


class SimTurns(Struct):
    """The turns of one pool. began, ended: of the last one, in s in which the pool was not paused; ended is None while
    it lasts."""

    began: float = 0.0
    ended: float | None = 0.0
    paused_at: float | None = None
    paused_s: float = 0.0

    @property
    def paused(self) -> bool:
        return self.paused_at is not None

    def pause(self, now: float) -> None:
        if self.paused_at is None:
            self.paused_at = now

    def resume(self, now: float) -> None:
        if self.paused_at is not None:
            self.paused_s += now - self.paused_at
        self.paused_at = None

    def begin(self, now: float, *, last: bool, others_wait: bool) -> None:
        """A group is sent. last: to the only replica that is ready."""
        at = self._clock(now)
        ended = at if self.ended is None else self.ended
        if last and others_wait and at - ended < ended - self.began - _ROUNDING_S:
            raise Violation(
                f"a survivor is starved: suspects had it for {ended - self.began:.4f} s, and have it again "
                f"{at - ended:.4f} s later, at {now:.4f} s"
            )
        self.began, self.ended = at, None

    def end(self, now: float) -> None:
        if self.ended is None:
            self.ended = self._clock(now)

    def _clock(self, now: float) -> float:
        return (now if self.paused_at is None else self.paused_at) - self.paused_s
