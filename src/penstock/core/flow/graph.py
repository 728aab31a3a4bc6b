"""The steps of one phase as a graph, seen from a row: what follows a step, what a join needs, and which steps a row has
passed where it ends.

Rows that several steps follow are in branches; a join takes the row up again, once. Steps of other phases do not exist
here: a join that has one of its two steps in an earlier phase waits for the other only, and a phase may end inside of
branches, so that a row is finished when it has passed every exit.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.core.shape import FlowShape


class PhaseGraph:
    """after, following   per step (of the whole pipeline), steps of this phase that it needs, and that need it
    entries, exits        steps that take the rows of the phase, and steps that no step of the phase follows
    is_chain              no row is ever at two steps at once
    """

    def __init__(self, shape: FlowShape) -> None:
        count = len(shape.steps)
        self.here = here = range(shape.begin, count if shape.end is None else shape.end)
        self.following: list[list[int]] = [[] for _ in range(count)]
        self.after = [tuple(before for before in step.after if before in here) for step in shape.steps]
        for index in here:
            for before in self.after[index]:
                self.following[before].append(index)
        self.entries = [index for index in here if not self.after[index]]
        self.exits = [index for index in here if not self.following[index]]
        self.is_chain = len(self.entries) == 1 and all(len(steps) <= 1 for steps in self.following)
        self._above = self._find_above(count)

    def _find_above(self, count: int) -> list[tuple[int, ...]]:
        """Per step, those that a row passes before it, in order."""
        above: list[tuple[int, ...]] = [()] * count
        # In the order of the file, which is topological: what stands above is known by then.
        for index in self.here:
            found = set(self.after[index]).union(*(above[before] for before in self.after[index]))
            above[index] = tuple(sorted(found))
        return above

    def passed(self, made_by: int | None, step: int | None) -> Sequence[int]:
        """The steps that a row has passed when it ends at `step` (None: with an output), that one not included.

        made_by: the step whose children it is one of. What the row has passed meanwhile in other branches does not
        count: it depends on what came first, and figures of a run, and of a retry that subtracts them, may not.
        """
        steps = self.here if step is None else self._above[step]
        if made_by is None:
            return steps
        # The parent counted these when it was expanded; each child would count them again.
        before = self._above[made_by]
        return [index for index in steps if index != made_by and index not in before]
