"""The engines by name. Nothing is imported until an engine is made."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from typing import NamedTuple

from penstock.engines.base import Engine
from penstock.errors import ConfigError, MissingDependency

__all__ = ["ENGINES", "create", "install_hint", "is_installed", "names", "needs_devices"]


class Registered(NamedTuple):
    """One engine.

    place    "module:Class"
    needs    modules of others that it imports
    extra    the extra of Penstock that installs them
    devices  whether a replica occupies devices
    """

    place: str
    needs: tuple[str, ...] = ()
    extra: str | None = None
    devices: bool = False


ENGINES: dict[str, Registered] = {
    "mock": Registered("penstock.engines.mock:MockEngine"),
    "python": Registered("penstock.engines.python:PythonEngine"),
    "transformers": Registered(
        "penstock.engines.transformers:TransformersEngine", ("torch", "transformers"), "transformers", True
    ),
    "vllm": Registered("penstock.engines.vllm:VllmEngine", ("vllm",), "vllm", True),
    "openai": Registered("penstock.engines.openai:OpenAIEngine", ("aiohttp",), "openai"),
}


def names() -> tuple[str, ...]:
    return tuple(ENGINES)


def _registered(name: str) -> Registered:
    found = ENGINES.get(name)
    if found is None:
        near = difflib.get_close_matches(name, ENGINES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"there is no engine {name!r}{hint} (known: {', '.join(ENGINES)})")
    return found


def needs_devices(name: str) -> bool:
    """Whether a replica of this engine occupies devices: GPUs, or cores of its own where there are none."""
    return _registered(name).devices


def install_hint(name: str) -> str:
    """The command that installs what the engine needs; "" where it needs nothing."""
    extra = _registered(name).extra
    return f"pip install 'penstock[{extra}]'" if extra else ""


def is_installed(name: str) -> bool:
    """Whether this interpreter has what the engine needs, without importing it."""
    return not missing_modules(name)


def missing_modules(name: str) -> list[str]:
    """The modules that the engine needs and this interpreter lacks."""
    return [module for module in _registered(name).needs if not _exists(module)]


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def create(name: str) -> Engine:
    """A new engine, not loaded. Raises ConfigError for an unknown name, MissingDependency for what is not installed."""
    missing = missing_modules(name)
    if missing:
        raise MissingDependency(
            f"the engine {name!r} needs {' and '.join(missing)}, which this Python lacks; install it with: "
            f"{install_hint(name)}"
        )
    module, _, attribute = _registered(name).place.partition(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)()
    return engine
