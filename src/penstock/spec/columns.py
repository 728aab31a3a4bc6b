"""Checks the column names in templates against the columns available at each step, before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.spec.graph import StepNode, step_path
from penstock.spec.outputs import output_path
from penstock.spec.pipeline import Pipeline
from penstock.spec.problems import KeyPath, Problem, config_error, nearest

SHOWN_COLUMNS = 12  # in a message

Known = tuple[str, ...] | None  # None: any column may be there


def check_columns(pipeline: Pipeline, source_columns: Sequence[str] | None) -> None:
    """Refuse templates that name a column which no earlier step produces, and outputs that would overwrite one of the
    source. `source_columns` None: not known, so only what steps say of each other is checked.

    Raises ConfigError with FILE:LINE of each.
    """
    problems = list(_problems(pipeline.order(), tuple(source_columns) if source_columns is not None else None))
    if problems:
        raise config_error((pipeline.place(problem.path), problem.message) for problem in problems)


def columns_after(pipeline: Pipeline, source_columns: Sequence[str] | None) -> list[Known]:
    """For each step the columns of the rows that leave it, in order; None where they can't be known."""
    known: list[Known] = []
    for node in pipeline.order():
        known.append(_after(node, _before(node, known, source_columns)))
    return known


def _problems(order: Sequence[StepNode], source: Known) -> Iterator[Problem]:
    known: list[Known] = []
    makers = {column: node.name for node in order for column in node.step.added_columns() or ()}
    for node in order:
        before = _before(node, known, source)
        known.append(_after(node, before))
        if before is not None:
            for key, names in node.step.used_columns():
                for name in sorted(names.difference(before)):
                    where = step_path(node.index, node.step, *key)
                    yield Problem(where, _unknown(name, key, before, makers.get(name)))
        for column in node.step.added_columns() or ():
            if source is not None and column in source:
                message = (
                    f"column '{column}' already exists in the source and can't be overwritten; choose another name"
                )
                yield Problem(output_path(node, column), message)


def _before(node: StepNode, known: Sequence[Known], source: Sequence[str] | None) -> Known:
    if not node.after:
        return None if source is None else tuple(source)
    branches = [known[index] for index in node.after]
    if len(branches) == 1:
        return branches[0]
    if any(branch is None for branch in branches):
        return None
    return tuple(dict.fromkeys(column for branch in branches for column in branch or ()))


def _after(node: StepNode, before: Known) -> Known:
    added = node.step.added_columns()
    if before is None or added is None:
        return None
    return tuple(dict.fromkeys((*before, *added)))


def _unknown(name: str, key: KeyPath, before: tuple[str, ...], maker: str | None) -> str:
    message = f"'{key[0]}' names column '{name}', which no earlier step produces"
    if maker is not None:
        return f"{message}; step '{maker}' produces it, but does not run before this one"
    near = nearest(name, before)
    if near is not None:
        return f"{message}; did you mean '{near}'?"
    listed = ", ".join(before[:SHOWN_COLUMNS]) + (", ..." if len(before) > SHOWN_COLUMNS else "")
    return f"{message}; available columns: {listed or 'none'}"
