"""The time that suspects take from the last ready replica of a pool, judged outside the core.

A turn lasts from the send of a group of suspects until a replica can serve others again: the group is answered, or the
replica died of it and one of the pool is ready. The next has to leave the others as much time, where they wait and
nothing else can serve them.
"""

from __future__ import annotations

from msgspec import Struct

from penstock.sim.violations import Violation

__all__ = ["SimTurns"]

_ROUNDING_S = 1e-6


class SimTurns(Struct):
    """The turns of one pool. began, ended: of the last one; ended is None while it lasts."""

    began: float = 0.0
    ended: float | None = 0.0

    def begin(self, now: float, *, last: bool, others_wait: bool) -> None:
        """A group is sent. last: to the only replica that is ready."""
        ended = now if self.ended is None else self.ended
        if last and others_wait and now - ended < ended - self.began - _ROUNDING_S:
            raise Violation(
                f"a survivor is starved: suspects had it from {self.began:.4f} to {ended:.4f} s, and have it again"
            )
        self.began, self.ended = now, None

    def end(self, now: float) -> None:
        if self.ended is None:
            self.ended = now
