"""How many rows of a run have come to which end: one type, from the flow through the ledger to summary.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from operator import add, sub

from msgspec import Struct

_NONE = (0, 0, 0)


class Counts(Struct, frozen=True):
    """Totals of a run, or the difference of two: source rows, output rows, dead rows, filtered rows (at any level)."""

    rows_in: int = 0
    out: int = 0
    dead: int = 0
    filtered: int = 0
    dead_sources: int = 0  # source rows with at least one dead row in their family
    ended_sources: int = 0  # with several phases: source rows that no later phase sees, or that ended in the last
    steps: dict[str, tuple[int, int, int]] = {}  # step name -> in, out, dead

    def __add__(self, other: Counts) -> Counts:
        return self._each(add, other)

    def __sub__(self, other: Counts) -> Counts:
        return self._each(sub, other)

    def _each(self, combine: Callable[[int, int], int], other: Counts) -> Counts:
        steps = {}
        for name in {**self.steps, **other.steps}:  # the steps of `self` first, in their order
            ours, theirs = self.steps.get(name, _NONE), other.steps.get(name, _NONE)
            steps[name] = (combine(ours[0], theirs[0]), combine(ours[1], theirs[1]), combine(ours[2], theirs[2]))
        return Counts(
            combine(self.rows_in, other.rows_in),
            combine(self.out, other.out),
            combine(self.dead, other.dead),
            combine(self.filtered, other.filtered),
            combine(self.dead_sources, other.dead_sources),
            combine(self.ended_sources, other.ended_sources),
            steps,
        )


def rejection(rejected: Sequence[int], finished: Iterable[int], dead: Collection[int], *, carries: bool) -> Counts:
    """What changes in the totals with a batch of which some output rows could not be encoded, and died instead.

    rejected, finished  the source position of each rejected row, and of each output row of the batch, those included
    dead                positions of which another row is counted as dead already
    carries             the rows were to go to a next phase: they were not counted as output, and a source row of which
                        nothing is left has ended here
    """
    if not rejected:
        return Counts()
    lost = Counter(rejected)
    left = Counter(finished) - lost
    # Per source row, not per row: a family may have lost several rows, had others that died, or keep some.
    return Counts(
        out=0 if carries else -len(rejected),
        dead=len(rejected),
        dead_sources=len(lost.keys() - set(dead)),
        ended_sources=len(lost.keys() - left.keys()) if carries else 0,
    )
