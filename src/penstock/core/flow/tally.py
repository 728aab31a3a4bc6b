"""The totals of a run: what the ledger keeps and `max_dead` is judged on.

Only source rows that have ended count, with everything below them. So the totals of a batch are true of what is durable
with it, and a resume adds to them without counting anything twice.
"""

from __future__ import annotations

from penstock.core.counts import Counts
from penstock.core.flow.families import Family
from penstock.core.shape import FlowShape, Progress

_ROUNDING = 1e-6  # of a row, far above what a fraction of a billion rows is off by: exactly at the limit is not beyond


class Tally:
    """Rows that never met an `expand` or a branch are counted by where they ended; the figures per step follow.

    read, ended  source rows of the phase
    the others   of the run: with what earlier lives and phases have counted. Where the rows that the phase finishes go
                 to a next phase they are no output yet, and their source rows have not ended
    """

    def __init__(self, shape: FlowShape, progress: Progress, ended: int) -> None:
        self._shape, self._progress = shape, progress
        before = progress.counts
        self.read = self.ended = ended
        self.out, self.dead, self.filtered = before.out, before.dead, before.filtered
        self.dead_sources, self.ended_sources = before.dead_sources, before.ended_sources
        self._finished = 0
        self._dead_at = [0] * len(shape.steps)
        self._filtered_at = [0] * len(shape.steps)
        self._in_families = [[0, 0, 0] for _ in shape.steps]

    def finished(self, count: int) -> None:
        """Plain rows that passed every step of a chain."""
        self._finished += count
        self.ended += count
        if not self._shape.carries:
            self.out += count
            self.ended_sources += count

    def ended_early(self, step: int, *, dead: bool, already_dead: bool) -> None:
        """A plain row that ended at `step` of a chain. already_dead: its source row is counted as dead already."""
        (self._dead_at if dead else self._filtered_at)[step] += 1
        self.dead += dead
        self.filtered += not dead
        self.dead_sources += dead and not already_dead
        self.ended += 1
        self.ended_sources += 1

    def unreadable(self) -> None:
        self.dead += 1
        self.dead_sources += 1
        self.ended += 1
        self.ended_sources += 1

    def family(self, family: Family, *, already_dead: bool) -> None:
        carried = self._shape.carries and bool(family.finished)
        self.out += 0 if carried else len(family.finished)
        self.dead += len(family.dead)
        self.filtered += family.filtered
        self.dead_sources += bool(family.dead) and not already_dead
        self.ended += 1
        self.ended_sources += not carried
        for total, counts in zip(self._in_families, family.steps, strict=True):
            for at, count in enumerate(counts):
                total[at] += count

    def rejected(self, moved: Counts) -> None:
        """Rows that could not be encoded became dead rows."""
        self.out += moved.out
        self.dead += moved.dead
        self.dead_sources += moved.dead_sources
        self.ended_sources += moved.ended_sources

    def counts(self) -> Counts:
        before = self._progress.counts
        return Counts(
            # Rows that were read and had not ended are read again by the next life; in a later phase all were counted.
            rows_in=before.rows_in if self._shape.begin else self.read,
            out=self.out,
            dead=self.dead,
            filtered=self.filtered,
            dead_sources=self.dead_sources,
            ended_sources=self.ended_sources,
            steps=(Counts(steps={step.name: (0, 0, 0) for step in self._shape.steps}) + before + self._here()).steps,
        )

    def _here(self) -> Counts:
        """(begun, done, dead) per step of this phase and life. In a chain, a row that ended at a later step has done
        this one."""
        steps = {}
        passed = self._finished
        for step in reversed(self._shape.here):
            begun, done, lost = self._in_families[step]
            dead = self._dead_at[step]
            reached = passed + dead + self._filtered_at[step]
            steps[self._shape.steps[step].name] = (begun + reached, done + passed, lost + dead)
            passed = reached
        return Counts(steps=steps)

    def too_many_dead(self, max_dead: int | float, judged_from: int, *, at_end: bool) -> bool:
        """A count is judged at once; a fraction from `judged_from` ended source rows of the phase on, and at the end.

        A later phase has fewer rows than the run. There a fraction becomes what may still die, as a share of the rows
        that it has, so that a phase in which nearly everything dies ends as early as the first would.
        """
        # A count is a promise about the whole run: it needs no sample, and phases before count as well.
        if isinstance(max_dead, int):
            return self.dead_sources > max_dead
        # Two dead rows among the first three say nothing of a million.
        if not at_end and self.ended < judged_from:
            return False
        before, rows = self._progress.before, self._progress.rows
        if rows is not None and max_dead < 1.0:
            max_dead = max(0.0, max_dead * before.rows_in - before.dead_sources) / max(1, rows)
        return self.dead_sources - before.dead_sources - max_dead * max(self.ended, 1) > _ROUNDING
