"""Making engines by name, and asking them what they refuse. An adapter is imported when it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from penstock.engine_info import info_of, install_hint, missing_modules
from penstock.engines.base import Engine, EngineLoadError
from penstock.errors import ConfigError, MissingDependency

__all__ = ["create", "refusal"]


def create(name: str) -> Engine:
    """A new engine, not loaded. Raises ConfigError for an unknown name, MissingDependency for what is not installed."""
    info = info_of(name)
    if not info.adapter:
        raise ConfigError(f"this version plans models for the engine {name!r}, and can't run them yet")
    if missing := missing_modules(info):
        raise MissingDependency(
            f"the engine {name!r} needs {' and '.join(missing)}, which is not installed; install it with: "
            f"{install_hint(info)}"
        )
    engine: Engine = _attribute(info.adapter)()
    return engine


def refusal(name: str, options: Mapping[str, Any], urls: Sequence[str] = ()) -> str:
    """Why an engine would refuse these engine_options or URLs, as far as that is known here; "" otherwise."""
    check = info_of(name).check
    if not check:
        return ""
    try:
        _attribute(check)(options, urls)
    except EngineLoadError as error:
        return str(error)
    return ""


def _attribute(path: str) -> Any:
    """What "module:name" stands for."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
