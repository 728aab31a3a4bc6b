"""The graph of a pipeline: step names, order, and the errors of its shape.

The order of steps in a pipeline is a topological one: `from` and `with` name steps that stand above. The last step is
where rows leave, so every other step must lead to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from penstock.spec.model import Model
from penstock.spec.problems import Problem, suggestion
from penstock.spec.steps import SOURCE, Step


@dataclass(frozen=True)
class StepNode:
    """One step in its place. `index` is its position in the pipeline, `after` those of the steps that it follows;
    empty: the source."""

    index: int
    name: str
    step: Step
    after: tuple[int, ...]


def named(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps with every name and every `from` written out; those already given stay as they are."""
    names = default_names([(step.kind, step.name) for step in steps])
    before = (SOURCE, *names)
    return tuple(
        step.model_copy(update={"name": name, "from_": step.from_ or before[index]})
        for index, (step, name) in enumerate(zip(steps, names, strict=True))
    )


def default_names(steps: Sequence[tuple[str, str | None]]) -> list[str]:
    """A name for each (kind, given name): the given one, else the kind, kind-2, ... whichever is free first."""
    taken = {name for _, name in steps if name is not None}
    names = []
    for kind, given in steps:
        number, name = 1, given or kind
        while given is None and name in taken:
            number += 1
            name = f"{kind}-{number}"
        taken.add(name)
        names.append(name)
    return names


def nodes(steps: Sequence[Step]) -> tuple[StepNode, ...]:
    """The steps of a valid pipeline, in order, with what each follows."""
    index_of = {step.name: index for index, step in enumerate(steps)}
    made = []
    for index, step in enumerate(steps):
        after = tuple(index_of[str(name)] for _, name in step.follows() if name != SOURCE)
        made.append(StepNode(index, str(step.name), step, after))
    return tuple(made)


def above_each(order: Sequence[StepNode]) -> list[frozenset[int]]:
    """Per step, all those that its rows have passed before."""
    above: list[frozenset[int]] = []
    for node in order:
        above.append(frozenset(node.after).union(*(above[index] for index in node.after)))
    return above


def shape_problems(steps: Sequence[Step], models: Mapping[str, Model]) -> Iterator[Problem]:
    """What is wrong with named steps as a whole. Paths begin at the pipeline."""
    if not steps:
        yield Problem(("steps",), "the pipeline has no steps; it needs at least one")
        return
    broken = [*_name_problems(steps), *_reference_problems(steps)]
    yield from broken
    yield from _model_problems(steps, models)
    if not broken:
        order = nodes(steps)
        yield from _loose_ends(order)
        yield from _join_problems(order)


def step_path(index: int, step: Step, *rest: str | int) -> tuple[str | int, ...]:
    """Where a step's key stands in a pipeline file."""
    return ("steps", index, step.kind, *rest)


def _name_problems(steps: Sequence[Step]) -> Iterator[Problem]:
    seen: set[str | None] = set()
    for index, step in enumerate(steps):
        if step.name in seen:
            yield Problem(step_path(index, step, "name"), f"two steps are named '{step.name}'; names are unique")
        seen.add(step.name)


def _reference_problems(steps: Sequence[Step]) -> Iterator[Problem]:
    above: list[str] = []
    every = [str(step.name) for step in steps]
    for index, step in enumerate(steps):
        for key, name in step.follows():
            if name is None or name == SOURCE or name in above:
                continue
            where = step_path(index, step, key)
            if name in every:
                yield Problem(where, f"'{key}': step '{name}' is not above '{step.name}'; move it up")
            else:
                yield Problem(where, f"'{key}': no step is named '{name}'{suggestion(name, above)}")
        above.append(str(step.name))


def _model_problems(steps: Sequence[Step], models: Mapping[str, Model]) -> Iterator[Problem]:
    for index, step in enumerate(steps):
        name = step.model_name
        if name is None:
            continue
        where = step_path(index, step, "model")
        model = models.get(name)
        if model is None:
            known = suggestion(name, models) or "; the pipeline has no models"
            yield Problem(where, f"'model': no model is named '{name}'{known}")
        elif model.task != step.task:
            yield Problem(where, f"'model': '{name}' has task {model.task}, and this step needs task {step.task}")


def _loose_ends(order: Sequence[StepNode]) -> Iterator[Problem]:
    followed = {index for node in order for index in node.after}
    for node in order[:-1]:
        if node.index not in followed:
            yield Problem(
                step_path(node.index, node.step),
                f"step '{node.name}' is a dead end: no step uses its output, and rows are written from "
                f"'{order[-1].name}'; "
                "join the branches, or remove it",
            )


def _join_problems(order: Sequence[StepNode]) -> Iterator[Problem]:
    above = above_each(order)
    for node in order:
        if len(node.step.follows()) < 2:
            continue
        if SOURCE in (name for _, name in node.step.follows()):
            yield Problem(
                step_path(node.index, node.step),
                f"'{node.name}' joins the source itself, whose columns are in every branch; name two steps",
            )
            continue
        if len(set(node.after)) < 2:
            yield Problem(step_path(node.index, node.step, "with"), "'with': is the same branch as 'from'")
            continue
        left, right = (above[index] | {index} for index in node.after)
        for index in sorted(left ^ right):
            if order[index].step.expands:
                yield Problem(
                    step_path(node.index, node.step, "with"),
                    f"'{node.name}' can't join a branch with an expand ('{order[index].name}'): its rows differ "
                    "from those of the other branch; expand before the fork, or after the join",
                )
