"""From a step of the pipeline to what it does."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.errors import ConfigError
from penstock.spec.steps import AnyStep, Expand, Filter, Generate, Map
from penstock.steps.base import StepLogic
from penstock.steps.expand import ExplodeLogic
from penstock.steps.filter import FilterLogic
from penstock.steps.generate import GenerateLogic
from penstock.steps.python import ExpandFunctionLogic, FilterFunctionLogic, MapLogic


def logic_for(step: AnyStep, source_columns: Iterable[str] = ()) -> StepLogic:
    """What `step` does to a row. `source_columns`: those that no function may change.

    Raises ConfigError for kinds that this version describes but can't run.
    """
    match step:
        case Generate():
            return GenerateLogic(step)
        case Map():
            return MapLogic(frozenset(source_columns))
        case Filter(expr=str(expr)):
            return FilterLogic(expr)
        case Filter():
            return FilterFunctionLogic()
        case Expand(column=str(column)):
            return ExplodeLogic(column, step.output or f"{column}_item")
        case Expand():
            return ExpandFunctionLogic(frozenset(source_columns))
    raise ConfigError(f"steps of the kind {step.kind!r} can't be run yet; generate, map, filter and expand can")
