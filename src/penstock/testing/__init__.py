"""The public test kit: a harness that talks to a host, and a conformance suite for each interface of plug-ins."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.testing.data import PartWriterConformance, SourceConformance
    from penstock.testing.engines import EngineConformance
    from penstock.testing.executors import ExecutorConformance

__all__ = ["EngineConformance", "ExecutorConformance", "PartWriterConformance", "SourceConformance"]

_MODULES = {
    "EngineConformance": "engines",
    "ExecutorConformance": "executors",
    "PartWriterConformance": "data",
    "SourceConformance": "data",
}


def __getattr__(name: str) -> Any:
    """The suites need pytest, and each the room that it tests: they are imported when they are asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
