"""From a step of the pipeline to its logic. A kind of step is a line of LOGICS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from penstock.errors import ConfigError
from penstock.spec.steps import Expand, Filter, Generate, Join, Map, Step
from penstock.steps.base import StepContext, StepLogic
from penstock.steps.expand import expand_logic
from penstock.steps.filter import filter_logic
from penstock.steps.generate import GenerateLogic
from penstock.steps.join import JoinLogic
from penstock.steps.python import MapLogic

# The step, and what it has to know of where it stands.
LOGICS: dict[type[Step], Callable[[Any, StepContext], StepLogic]] = {
    Generate: lambda step, context: GenerateLogic(step),
    Map: lambda step, context: MapLogic(context.source_columns, context.only(step)),
    Filter: lambda step, context: filter_logic(step),
    Expand: expand_logic,
    Join: lambda step, context: JoinLogic(),
}


def logic_for(step: Step, source_columns: Iterable[str] = (), *, above_join: bool = False) -> StepLogic:
    """What `step` does to a row. `source_columns`: those that no function may change.

    Raises ConfigError for kinds that this version describes but can't run.
    """
    make = LOGICS.get(type(step))
    if make is None:
        *most, last = (kind.kind for kind in LOGICS)
        raise ConfigError(f"steps of the kind {step.kind!r} can't be run yet; {', '.join(most)} and {last} can")
    return make(step, StepContext(frozenset(source_columns), above_join))
