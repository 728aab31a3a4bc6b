"""Checks the engine settings of a model against the engine records. No engine needs to be installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock.engine_info import EngineInfo, EngineOption, engines, info_of, model_engines
from penstock.spec.fields import is_number, is_whole
from penstock.spec.problems import Problem, shown, suggestion

__all__ = ["AUTO", "changes_answers", "engine_of_ref", "is_default", "option_problems", "remote_engine"]

AUTO = "auto"

_EXPECTED = {
    "count": "a whole number of at least 1",
    "number": "a number of at least 0",
    "whole": "a whole number",
    "text": "text",
}


def engine_of_ref(ref: str) -> EngineInfo | None:
    """The engine that a reference itself names (`mock:NAME`)."""
    return next((info for info in model_engines() if info.ref_prefix and ref.startswith(info.ref_prefix)), None)


def remote_engine() -> EngineInfo:
    """The engine of models with a `base_url`."""
    return next(info for info in model_engines() if info.remote)


def option_problems(info: EngineInfo, options: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the engine_options of a model; nothing where only the engine itself knows them."""
    for name, value in options.items() if info.options else ():
        path = ("engine_options", name)
        option = info.options.get(name)
        if option is None:
            yield Problem(path, f"unknown option '{name}' of the {info.name} engine{suggestion(name, info.options)}")
        elif not _fits(option, value):
            yield Problem(path, f"'{name}': expected {_EXPECTED[option.kind]}, got {shown(value)}")


def _fits(option: EngineOption, value: object) -> bool:
    match option.kind:
        case "count":
            return is_whole(value) and value >= 1  # type: ignore[operator]
        case "number":
            return is_number(value) and value >= 0  # type: ignore[operator]
        case "whole":
            return is_whole(value)
        case "text":
            return isinstance(value, str) and value != ""


def changes_answers(engine: str, option: str) -> bool:
    """Whether an engine option belongs to a model's answer identity."""
    if engine == AUTO:  # whichever it turns out to be: an option that any engine counts as placement is placement
        return all(option not in info.placement_options for info in engines().values())
    return info_of(engine).changes_answers(option)


def is_default(engine: str, option: str, value: object) -> bool:
    """Whether the value is what holds without the option, so that both are the same model."""
    return engine != AUTO and info_of(engine).is_default(option, value)
