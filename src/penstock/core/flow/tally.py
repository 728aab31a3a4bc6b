"""The totals of a run: what the ledger keeps and `max_dead` is judged on.

Only source rows that have ended count, with everything below them. So the totals of a batch are true of what is durable
with it, and a resume adds to them without counting anything twice.
"""

from __future__ import annotations

from penstock.core.events import FlowCounts
from penstock.core.flow.families import Family
from penstock.core.shape import Progress

_ROUNDING = 1e-6  # of a row, far above what a fraction of a billion rows is off by: exactly at the limit is not beyond


class Tally:
    """Rows that never met an `expand` or a branch are counted by where they ended; the figures per step follow."""

    def __init__(self, progress: Progress, steps: int, ended_sources: int, here: range | None = None) -> None:
        self._here = range(steps) if here is None else here  # the steps of this phase
        self.rows_in = ended_sources
        self.out = progress.out
        self.dead = progress.dead
        self.filtered = progress.filtered
        self.dead_sources = progress.dead_sources
        self.ended_sources = ended_sources
        self._steps = progress.steps or ((0, 0, 0),) * steps
        self._finished = 0
        self._dead_at = [0] * steps
        self._filtered_at = [0] * steps
        self._in_families = [[0, 0, 0] for _ in range(steps)]

    def finished(self, count: int) -> None:
        """Plain rows that passed every step of a chain."""
        self._finished += count
        self.out += count
        self.ended_sources += count

    def ended_early(self, step: int, *, dead: bool, counted: bool) -> None:
        """A plain row that ended at `step` of a chain. counted: its source row is counted as dead already."""
        (self._dead_at if dead else self._filtered_at)[step] += 1
        self.dead += dead
        self.filtered += not dead
        self.dead_sources += dead and not counted
        self.ended_sources += 1

    def unreadable(self) -> None:
        self.dead += 1
        self.dead_sources += 1
        self.ended_sources += 1

    def family(self, family: Family, *, counted: bool) -> None:
        self.out += len(family.finished)
        self.dead += len(family.dead)
        self.filtered += family.filtered
        self.dead_sources += bool(family.dead) and not counted
        self.ended_sources += 1
        for total, counts in zip(self._in_families, family.steps, strict=True):
            for at, count in enumerate(counts):
                total[at] += count

    def rejected(self, count: int, sources: int) -> None:
        """Output rows that could not be encoded became dead rows, the first ones of `sources` source rows."""
        self.out -= count
        self.dead += count
        self.dead_sources += sources

    def counts(self) -> FlowCounts:
        return FlowCounts(
            rows_in=self.rows_in,
            out=self.out,
            dead=self.dead,
            filtered=self.filtered,
            dead_sources=self.dead_sources,
            ended_sources=self.ended_sources,
            steps=tuple(self._step_counts()),
        )

    def _step_counts(self) -> list[tuple[int, int, int]]:
        """(begun, done, dead) per step. In a chain, who ended at a later step has done this one."""
        found = list(self._steps)
        passed = self._finished
        for step in reversed(self._here):
            before, family = self._steps[step], self._in_families[step]
            dead, filtered = self._dead_at[step], self._filtered_at[step]
            reached = passed + dead + filtered
            found[step] = (
                before[0] + family[0] + reached,
                before[1] + family[1] + passed,
                before[2] + family[2] + dead,
            )
            passed = reached
        return found

    def too_many_dead(self, max_dead: int | float, judged_from: int, *, at_end: bool) -> bool:
        """A count is judged at once; a fraction from `judged_from` ended source rows on, and at the end."""
        if isinstance(max_dead, int):
            return self.dead_sources > max_dead
        if not at_end and self.ended_sources < judged_from:
            return False
        return self.dead_sources - max_dead * max(self.ended_sources, 1) > _ROUNDING
