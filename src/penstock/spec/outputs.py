"""Checks that no two steps add the same column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.spec.graph import StepNode, above_each, step_path
from penstock.spec.problems import KeyPath, Problem


def output_path(node: StepNode, column: str) -> KeyPath:
    """The key that makes `column`, for messages."""
    return step_path(node.index, node.step, (node.step.added_columns() or {})[column])


def collision_problems(order: Sequence[StepNode]) -> Iterator[Problem]:
    """Two steps that make one column. A map may say that it rewrites a column of a step above it."""
    made_by: dict[str, StepNode] = {}
    above = above_each(order)
    for node in order:
        for column in node.step.added_columns() or ():
            earlier = made_by.setdefault(column, node)
            rewrites = node.step.rewrites and earlier.index in above[node.index]
            if earlier is not node and not rewrites:
                message = f"column '{column}' is already produced by step '{earlier.name}'; choose another name"
                yield Problem(output_path(node, column), message)
