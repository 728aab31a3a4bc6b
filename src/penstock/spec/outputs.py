"""The columns that each step adds, and that no two steps make the same one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.spec.graph import StepNode, step_path
from penstock.spec.problems import Problem
from penstock.spec.steps import AnyStep, Embed, Expand, Generate, Map


def added_columns(step: AnyStep) -> tuple[str, ...] | None:
    """The columns that a step adds, in order; None where only running its function tells."""
    match step:
        case Generate():
            meta = (f"{step.output}_meta",) if step.meta else ()
            logprobs = (f"{step.output}_logprobs",) if step.logprobs is not None else ()
            return (step.output, *meta, *logprobs)
        case Embed():
            return (step.output,)
        case Expand() if step.column is not None:
            return (str(step.output),)
        case Map() | Expand():
            return step.columns
        case _:
            return ()


def output_path(node: StepNode, column: str) -> tuple[str | int, ...]:
    """The key that makes `column`, for messages."""
    step = node.step
    key = "columns" if isinstance(step, (Map, Expand)) and step.function is not None else "output"
    if isinstance(step, Generate) and column != step.output:
        key = "meta" if column == f"{step.output}_meta" else "logprobs"
    return step_path(node.index, step, key)


def collision_problems(order: Sequence[StepNode]) -> Iterator[Problem]:
    """Two steps that make one column. A map may say that it rewrites a column of a step above it."""
    made_by: dict[str, StepNode] = {}
    above: list[frozenset[int]] = []
    for node in order:
        above.append(frozenset(node.after).union(*(above[index] for index in node.after)))
        for column in added_columns(node.step) or ():
            earlier = made_by.setdefault(column, node)
            rewrites = isinstance(node.step, Map) and earlier.index in above[node.index]
            if earlier is not node and not rewrites:
                message = f"column '{column}' is made by step '{earlier.name}' already; choose another name"
                yield Problem(output_path(node, column), message)
