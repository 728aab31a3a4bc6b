"""Penstock runs datasets through LLMs and embedding models on every accelerator a person has.

    import penstock as ps
    llm = ps.Model("Qwen/Qwen3-8B")
    rows = ps.read("questions.jsonl").generate(llm, prompt="Answer briefly: {{ question }}", output="answer")
    result = rows.write("out/answers").run()

Names load where they are first used, so that importing Penstock costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.errors import (
        ConfigError,
        InputError,
        MissingDependency,
        PenstockError,
        PlanError,
        PoolFailed,
        RunMismatch,
        RunOwned,
        UsageError,
    )
    from penstock.runtime.pool.api import LaunchedPool, launch
    from penstock.runtime.pool.calls import Generation, GenerationError
    from penstock.runtime.run.api import RunOptions, RunResult, run
    from penstock.spec.load import load_pipeline
    from penstock.spec.model import Model
    from penstock.spec.pipeline import Pipeline, Resources, Sink, Source
    from penstock.spec.rows import Rows, read
    from penstock.spec.steps import Embed, Expand, Filter, Generate, Join, Map

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "Embed",
    "Expand",
    "Filter",
    "Generate",
    "Generation",
    "GenerationError",
    "InputError",
    "Join",
    "LaunchedPool",
    "Map",
    "MissingDependency",
    "Model",
    "PenstockError",
    "Pipeline",
    "PlanError",
    "PoolFailed",
    "Resources",
    "Rows",
    "RunMismatch",
    "RunOptions",
    "RunOwned",
    "RunResult",
    "Sink",
    "Source",
    "UsageError",
    "__version__",
    "launch",
    "load_pipeline",
    "read",
    "run",
]

_MODULES = {
    "penstock.errors": (
        "ConfigError",
        "InputError",
        "MissingDependency",
        "PenstockError",
        "PlanError",
        "PoolFailed",
        "RunMismatch",
        "RunOwned",
        "UsageError",
    ),
    "penstock.runtime.run.api": ("RunOptions", "RunResult", "run"),
    "penstock.runtime.pool.calls": ("Generation", "GenerationError"),
    "penstock.runtime.pool.api": ("LaunchedPool", "launch"),
    "penstock.spec.load": ("load_pipeline",),
    "penstock.spec.model": ("Model",),
    "penstock.spec.pipeline": ("Pipeline", "Resources", "Sink", "Source"),
    "penstock.spec.rows": ("Rows", "read"),
    "penstock.spec.steps": ("Embed", "Expand", "Filter", "Generate", "Join", "Map"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
