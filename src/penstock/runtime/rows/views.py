"""The columns that each branch sees: those of its own steps and those from before the fork, regardless of timing.

A row in branches has no single state. Kept is the row as it leaves each step, for as long as a step may still ask: the
columns of a step's input follow from the graph alone. A join puts together what has left its two steps. Where a phase
ends inside of branches, the row is carried on with the columns of all of them, and the next phase gives each branch
its own back: every column below a join has one owner (spec/branches.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.data.base import Row
from penstock.spec.branches import has_branches
from penstock.spec.graph import StepNode, above_each

__all__ = ["BranchViews", "views_of"]


def views_of(nodes: Sequence[StepNode], begin: int, end: int) -> BranchViews | None:
    """For the phase that runs nodes[begin:end]; None where the pipeline is a chain, in which a row has one state."""
    return BranchViews(nodes, begin, end) if has_branches(nodes) else None


class BranchViews:
    """`base` is the row as it came to the phase, or out of an `expand` of it."""

    def __init__(self, nodes: Sequence[StepNode], begin: int, end: int) -> None:
        self._after = [node.after for node in nodes]
        self._begin = begin
        above = above_each(nodes)
        self._behind = [above[index] | {index} for index in range(len(nodes))]  # what has left a step has passed these
        self._made = [tuple(node.step.added_columns() or ()) for node in nodes]
        here = range(begin, end)
        followers = [0] * len(nodes)
        for index in here:
            for before in nodes[index].after:
                followers[before] += 1
        self._passed_on = [count == 1 for count in followers]  # one step takes it: not kept when that has given its own
        self._exits = [index for index in here if not followers[index]]
        self._whole = len(self._exits) == 1 and len(self._behind[self._exits[0]]) == end
        self._of_exit = [self._columns_of(self._behind[index].intersection(here)) for index in self._exits]
        # Columns of the base that a step does not see: those of earlier phases' steps which its rows have not passed.
        earlier = frozenset(range(begin))
        self._hidden = [self._columns_of(earlier - behind) for behind in self._behind]
        self._hidden_at_source = self._columns_of(earlier)
        self._left: dict[int, dict[int, Row]] = {}  # row -> step -> the row as it left the step

    def _columns_of(self, steps: frozenset[int]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(column for step in sorted(steps) for column in self._made[step]))

    def before(self, base: Row, row: int, step: int) -> Row:
        """The row as `step` gets it."""
        after = self._after[step]
        if not after:
            return _without(base, self._hidden_at_source)
        found, passed = self._leaving(base, row, after[0]), self._behind[after[0]]
        for other in after[1:]:
            theirs = self._leaving(base, row, other)
            own = self._columns_of(self._behind[other] - passed)
            found = {**found, **{column: theirs[column] for column in own if column in theirs}}
            passed = passed | self._behind[other]
        return found

    def _leaving(self, base: Row, row: int, step: int) -> Row:
        left = self._left.get(row)
        if left is not None and step in left:
            return left[step]
        # It left the step in an earlier phase, or as a child of this one (an expand is never inside of a branch).
        return _without(base, self._hidden[step]) if step < self._begin else base

    def put(self, row: int, step: int, content: Row) -> None:
        """The row leaves `step` with this content."""
        left = self._left.setdefault(row, {})
        left[step] = content
        for before in self._after[step]:
            if self._passed_on[before]:
                left.pop(before, None)

    def finished(self, base: Row, row: int) -> Row:
        """The row as it leaves the phase, with the columns of all branches. It is forgotten here."""
        left = self._left.pop(row, None)
        if left is None:
            return base
        if self._whole:
            return left[self._exits[0]]
        found = dict(base)
        for step, columns in zip(self._exits, self._of_exit, strict=True):
            content = left[step]
            found.update((column, content[column]) for column in columns if column in content)
        return found

    def drop(self, row: int) -> None:
        self._left.pop(row, None)


def _without(row: Row, columns: Sequence[str]) -> Row:
    if not any(column in row for column in columns):
        return row
    return {name: value for name, value in row.items() if name not in columns}
