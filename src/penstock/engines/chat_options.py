"""`engine_options`: known names only, with the nearest right name for a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from penstock.engines.base import EngineLoadError
from penstock.redaction import masked

__all__ = ["check_options", "option"]


def check_options(given: Mapping[str, Any], known: Collection[str], engine: str) -> None:
    """Raises EngineLoadError for the first name that the engine does not know."""
    for name in given:
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known options: {', '.join(sorted(known))}"
        raise EngineLoadError(f"engine_options: the {engine} engine has no option {name!r}{hint}", "bad_model")


def option(given: Mapping[str, Any], name: str, kind: type | tuple[type, ...], default: Any) -> Any:
    """The option's value, or `default` where it is not given. Raises EngineLoadError for a wrong type."""
    value = given.get(name)
    if value is None:
        return default
    kinds = kind if isinstance(kind, tuple) else (kind,)
    wrong_bool = isinstance(value, bool) and bool not in kinds
    if wrong_bool or not isinstance(value, kinds):
        wanted = " or ".join(each.__name__ for each in kinds)
        raise EngineLoadError(f"engine_options: {name} is {masked(value, name)!r}; expected {wanted}", "bad_model")
    return value
