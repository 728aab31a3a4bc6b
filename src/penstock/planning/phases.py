"""The division of a pipeline into phases: the steps of each, and the pools that it loads.

A step belongs to the phase in which its pool is loaded, and to none before that of the step above it; a step without a
model goes with the step above. See design/0008.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.spec.graph import StepNode
from penstock.spec.pipeline import Pipeline

__all__ = ["PhasePlan", "cut_steps", "phases_of", "pools_by_phase"]


@dataclass(frozen=True)
class PhasePlan:
    """steps[begin:end], and pools by index: those loaded in it; `lazy`, of these, start with their first request;
    `sleep` are not needed in the next phase but later again."""

    begin: int
    end: int
    pools: tuple[int, ...]
    lazy: tuple[int, ...] = ()
    sleep: tuple[int, ...] = ()


def cut_steps(uses: Sequence[str], phases: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """The steps at which phases end. uses: per step the name of its pool, "" where it needs no model."""
    ends: list[int] = []
    for index, name in enumerate(uses):
        if name and name not in phases[len(ends)]:
            ends.append(index)
    return (*ends, len(uses))


def pools_by_phase(uses: Sequence[str], cut: Sequence[int]) -> list[tuple[str, ...]]:
    """The names of the pools that each phase of a given cut has loaded."""
    begins = (0, *cut)
    return [tuple(dict.fromkeys(filter(None, uses[begin:end]))) for begin, end in zip(begins, cut, strict=False)]


def phases_of(pipeline: Pipeline, pool_of_step: Mapping[int, int], cut: Sequence[int]) -> tuple[PhasePlan, ...]:
    nodes = pipeline.order()
    begins = (0, *cut)
    loaded = [
        tuple(sorted({pool_of_step[step] for step in range(begin, end) if step in pool_of_step}))
        for begin, end in zip(begins, cut, strict=False)
    ]
    return tuple(
        PhasePlan(
            begin,
            end,
            loaded[number],
            _lazy(pipeline, nodes[begin:end], pool_of_step),
            tuple(pool for pool in loaded[number] if _rests(pool, loaded[number + 1 :])),
        )
        for number, (begin, end) in enumerate(zip(begins, cut, strict=False))
    )


def _rests(pool: int, later: Sequence[tuple[int, ...]]) -> bool:
    """Whether the next phase does without the pool, and one after it does not."""
    return bool(later) and pool not in later[0] and any(pool in pools for pools in later[1:])


def _lazy(pipeline: Pipeline, nodes: Sequence[StepNode], pool_of_step: Mapping[int, int]) -> tuple[int, ...]:
    """Pools of a phase that are loaded when their first request comes: those asked for, and those behind a filter."""
    behind: set[int] = set()  # steps below a filter of this phase
    eager: set[int] = set()
    lazy: set[int] = set()
    for node in nodes:
        if any(above in behind or pipeline.steps[above].filters for above in node.after):
            behind.add(node.index)
        name = node.step.model_name
        if name is None or node.index not in pool_of_step:
            continue
        wish = pipeline.models[name].load
        is_lazy = wish == "lazy" or (wish == "auto" and node.index in behind)
        (lazy if is_lazy else eager).add(pool_of_step[node.index])
    return tuple(sorted(lazy - eager))
