"""Checks that every template names columns that exist where it stands, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.spec.graph import StepNode, step_path
from penstock.spec.outputs import added_columns, output_path
from penstock.spec.pipeline import Pipeline
from penstock.spec.problems import KeyPath, Problem, config_error, nearest
from penstock.spec.steps import AnyStep, Embed, Expand, Filter, Generate
from penstock.spec.templates import is_template, undeclared, undeclared_in_expression

SHOWN_COLUMNS = 12  # in a message

Known = tuple[str, ...] | None  # None: any column may be there


def check_columns(pipeline: Pipeline, source_columns: Sequence[str] | None) -> None:
    """Refuse templates that name a column which no earlier step makes, and outputs that would overwrite one of the
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
    makers = {column: node.name for node in order for column in added_columns(node.step) or ()}
    for node in order:
        before = _before(node, known, source)
        known.append(_after(node, before))
        if before is not None:
            for key, names in used_columns(node.step):
                for name in sorted(names.difference(before)):
                    where = step_path(node.index, node.step, *key)
                    yield Problem(where, _unknown(name, key, before, makers.get(name)))
        for column in added_columns(node.step) or ():
            if source is not None and column in source:
                message = f"column '{column}' is in the source already, and is never overwritten; choose another name"
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
    added = added_columns(node.step)
    if before is None or added is None:
        return None
    return tuple(dict.fromkeys((*before, *added)))


def used_columns(step: AnyStep) -> Iterator[tuple[KeyPath, frozenset[str]]]:
    """(key path, columns) of everything in a step that reads the row by name."""
    match step:
        case Generate():
            if step.prompt is not None:
                yield ("prompt",), undeclared(step.prompt)
            for index, message in enumerate(step.messages or ()):
                yield ("messages", index, "content"), undeclared(message.content)
            for name, value in step.sampling.items():
                if isinstance(value, str) and is_template(value):
                    yield (name,), undeclared(value)
        case Embed():
            yield ("text",), undeclared(step.text)
        case Filter() if step.expr is not None:
            yield ("expr",), undeclared_in_expression(step.expr)
        case Expand() if step.column is not None:
            yield ("column",), frozenset({step.column})


def _unknown(name: str, key: KeyPath, before: tuple[str, ...], maker: str | None) -> str:
    message = f"'{key[0]}' names column '{name}', which no earlier step makes"
    if maker is not None:
        return f"{message}; step '{maker}' makes it, and does not stand before this one"
    near = nearest(name, before)
    if near is not None:
        return f"{message}; did you mean '{near}'?"
    listed = ", ".join(before[:SHOWN_COLUMNS]) + (", ..." if len(before) > SHOWN_COLUMNS else "")
    return f"{message}; the columns here are: {listed or 'none'}"
