"""The engines by name. Nothing is imported until an engine is made."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from penstock.engines.base import Engine, EngineLoadError
from penstock.errors import ConfigError, MissingDependency

__all__ = ["ENGINES", "create", "install_hint", "is_installed", "names", "needs_devices", "refusal"]


class Registered(NamedTuple):
    """One engine.

    place    "module:Class"
    needs    modules of others that it imports
    extra    the extra of Penstock that installs them
    devices  whether a replica occupies devices
    check    "module:function" that refuses options and URLs without loading anything; imports none of `needs`
    """

    place: str
    needs: tuple[str, ...] = ()
    extra: str | None = None
    devices: bool = False
    check: str = ""


ENGINES: dict[str, Registered] = {
    "mock": Registered("penstock.engines.mock.engine:MockEngine"),
    "python": Registered("penstock.engines.python.engine:PythonEngine"),
    "transformers": Registered(
        "penstock.engines.transformers.engine:TransformersEngine",
        ("torch", "transformers"),
        "transformers",
        True,
        "penstock.engines.transformers.load:check_model",
    ),
    "vllm": Registered(
        "penstock.engines.vllm.engine:VllmEngine", ("vllm",), "vllm", True, "penstock.engines.vllm.load:check_model"
    ),
    "openai": Registered(
        "penstock.engines.openai.engine:OpenAIEngine",
        ("aiohttp",),
        "openai",
        False,
        "penstock.engines.openai.engine:check_model",
    ),
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


def refusal(name: str, options: Mapping[str, Any], urls: Sequence[str] = ()) -> str:
    """Why an engine would refuse these engine_options or URLs, as far as that can be told here; "" where it can't."""
    place = _registered(name).check
    if not place:
        return ""
    module, _, attribute = place.partition(":")
    try:
        getattr(importlib.import_module(module), attribute)(options, urls)
    except EngineLoadError as error:
        return str(error)
    return ""


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
