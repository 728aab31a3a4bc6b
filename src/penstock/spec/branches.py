"""Rules of branches: their steps, the columns that these may add, and the errors.

Two steps with the same `from` make two branches, and a `join` takes up both. A branch sees the columns of its own
steps and those from before the parting. So that this holds whatever the timing, each column below a join has one owner
that is known before the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.spec.graph import StepNode, above_each, step_path
from penstock.spec.problems import Problem

__all__ = ["above_joins", "branch_problems", "has_branches"]


def has_branches(order: Sequence[StepNode]) -> bool:
    return any(len(node.after) > 1 for node in order)


def above_joins(order: Sequence[StepNode]) -> frozenset[int]:
    """The steps that some join follows. Their functions return no columns but those that they name."""
    above = above_each(order)
    return frozenset(index for node in order if len(node.after) > 1 for index in above[node.index])


def branch_problems(order: Sequence[StepNode]) -> Iterator[Problem]:
    """Columns whose owner is not known, or is not one."""
    for index in sorted(above_joins(order)):
        node = order[index]
        if node.step.added_columns() is None:
            message = (
                f"'{node.name}' is above a join and needs `columns: [...]`, the columns that it adds: a branch sees "
                "only the columns of its own steps"
            )
            yield Problem(step_path(node.index, node.step, "columns"), message)
    yield from _rewritten(order)


def _rewritten(order: Sequence[StepNode]) -> Iterator[Problem]:
    """A step in a branch may not overwrite a column from before the fork: the join would have two values."""
    above = above_each(order)
    for join in order:
        if len(join.after) < 2:
            continue
        left, right = (above[index] | {index} for index in join.after)
        shared = {column: order[index] for index in sorted(left & right) for column in _added(order[index])}
        for index in sorted(left ^ right):
            for column in _added(order[index]):
                if column in shared:
                    node, maker = order[index], shared[column]
                    message = (
                        f"'{node.name}' overwrites column '{column}' of step '{maker.name}' in one branch of "
                        f"'{join.name}' only; choose another name"
                    )
                    yield Problem(step_path(node.index, node.step, "columns"), message)


def _added(node: StepNode) -> Sequence[str]:
    return tuple(node.step.added_columns() or ())
