"""From a step of the pipeline to what it does. A kind of step is a line of LOGICS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from penstock.errors import ConfigError
from penstock.spec.steps import Expand, Filter, Generate, Map, Step
from penstock.steps.base import StepLogic
from penstock.steps.expand import expand_logic
from penstock.steps.filter import filter_logic
from penstock.steps.generate import GenerateLogic
from penstock.steps.python import MapLogic

# The step, and the columns of the source, which no step may change.
LOGICS: dict[type[Step], Callable[[Any, frozenset[str]], StepLogic]] = {
    Generate: lambda step, source: GenerateLogic(step),
    Map: lambda step, source: MapLogic(source),
    Filter: lambda step, source: filter_logic(step),
    Expand: expand_logic,
}


def logic_for(step: Step, source_columns: Iterable[str] = ()) -> StepLogic:
    """What `step` does to a row. `source_columns`: those that no function may change.

    Raises ConfigError for kinds that this version describes but can't run.
    """
    make = LOGICS.get(type(step))
    if make is None:
        *most, last = (kind.kind for kind in LOGICS)
        raise ConfigError(f"steps of the kind {step.kind!r} can't be run yet; {', '.join(most)} and {last} can")
    return make(step, frozenset(source_columns))
