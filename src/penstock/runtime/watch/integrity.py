"""Checks the invariants of the state machines in production while the loop is idle.

A check costs time in proportion to what is open, so it is bounded in three ways. At most one is done a second, in turn.
Each is followed by a rest, so that all of them together take SHARE of the time at most, 10 ms a second. One that would
hold up the loop for more than LONGEST_S, judged by those before, is left out until less is open. A busy loop is not
interrupted; what is broken there is found when it comes to rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.core.check import Check
from penstock.errors import InvariantError

__all__ = ["EVERY_S", "LONGEST_S", "SHARE", "Integrity"]

EVERY_S = 1.0
SHARE = 0.01
LONGEST_S = 0.05
_FIRST_S_PER_ITEM = 5e-6  # before there is a measure: more than a check takes on a slow CPU
_MEASURED_FROM = 64  # items: with fewer, it is the checks' own cost that is measured
_LONGEST_REST_S = 3600.0


class Integrity:
    """on_broken: what is done about a broken invariant; None: its InvariantError is raised."""

    def __init__(
        self,
        checks: Sequence[Check],
        now: Callable[[], float],
        on_broken: Callable[[InvariantError], None] | None = None,
    ) -> None:
        self._checks, self._now, self._on_broken = checks, now, on_broken
        self._s_per_item = [_FIRST_S_PER_ITEM] * len(checks)
        self._turn = 0
        self._due_s = now() + EVERY_S
        self._rest_s = EVERY_S  # grows while something stays broken: it is the same story again

    def due(self) -> bool:
        return bool(self._checks) and self._now() >= self._due_s

    def check(self) -> None:
        """The next of the checks, unless it would take too long now. To be called when it is due and the loop idle."""
        at = self._turn % len(self._checks)
        self._turn += 1
        check, began_s = self._checks[at], self._now()
        size = check.size()
        self._due_s = began_s + self._rest_s
        if size * self._s_per_item[at] > LONGEST_S:
            return
        try:
            check.check()
        except InvariantError as error:
            if self._on_broken is None:
                raise
            self._on_broken(error)
            self._rest_s = min(_LONGEST_REST_S, 2 * self._rest_s)
        took_s = self._now() - began_s
        if size >= _MEASURED_FROM:
            # The fastest so far: one that met a pause of the process would look slow for good, and not be tried again.
            self._s_per_item[at] = min(took_s / size, self._s_per_item[at])
        self._due_s = began_s + max(self._rest_s, took_s / SHARE)
