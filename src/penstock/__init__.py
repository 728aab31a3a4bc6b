"""Penstock runs datasets through LLMs and embedding models on every accelerator you have.

    import penstock as ps
    llm = ps.Model("Qwen/Qwen3-8B")
    rows = ps.read("questions.jsonl").generate(llm, prompt="Answer briefly: {{ question }}", output="answer")
    result = rows.write("out/answers").run()

Names are imported on first use, so that `import penstock` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from penstock import errors

if TYPE_CHECKING:
    from penstock.errors import (
        CommitError,
        ConfigError,
        ExitCode,
        Fenced,
        InputError,
        Interrupted,
        InvariantError,
        LedgerDamaged,
        MissingDependency,
        PenstockError,
        PlanError,
        PoolFailed,
        RunFailed,
        RunIncomplete,
        RunMismatch,
        RunOwned,
        Stalled,
        TooManyDead,
        UsageError,
    )
    from penstock.planner.fit import Memory
    from penstock.planner.result import ModelPlan, Plan, Rejected, ReplicaPlan, Rung
    from penstock.planning.plan import plan
    from penstock.report.facts import DeadExample, PoolFacts, ReplicaFacts, RunFacts, StepFacts
    from penstock.runtime.pool.api import LaunchedPool, launch
    from penstock.runtime.pool.calls import Generation, GenerationError
    from penstock.runtime.retry.retry import retry
    from penstock.runtime.run.api import run
    from penstock.runtime.run.options import RunOptions, RunResult
    from penstock.spec.cluster import Cluster, Node
    from penstock.spec.functions import FunctionRef
    from penstock.spec.graph import StepNode
    from penstock.spec.load import load_pipeline
    from penstock.spec.model import Model
    from penstock.spec.pipeline import Pipeline, Reserve, Resources, Sink, Source, Window
    from penstock.spec.rows import Rows, read
    from penstock.spec.sampling import SamplingOptions
    from penstock.spec.steps import Embed, Expand, Filter, Generate, Join, Map, Message, Step

__version__ = "0.1.0"

__all__ = [
    "Cluster",
    "CommitError",
    "ConfigError",
    "DeadExample",
    "Embed",
    "ExitCode",
    "Expand",
    "Fenced",
    "Filter",
    "FunctionRef",
    "Generate",
    "Generation",
    "GenerationError",
    "InputError",
    "Interrupted",
    "InvariantError",
    "Join",
    "LaunchedPool",
    "LedgerDamaged",
    "Map",
    "Memory",
    "Message",
    "MissingDependency",
    "Model",
    "ModelPlan",
    "Node",
    "PenstockError",
    "Pipeline",
    "Plan",
    "PlanError",
    "PoolFacts",
    "PoolFailed",
    "Rejected",
    "ReplicaFacts",
    "ReplicaPlan",
    "Reserve",
    "Resources",
    "Rows",
    "RunFacts",
    "RunFailed",
    "RunIncomplete",
    "RunMismatch",
    "RunOptions",
    "RunOwned",
    "RunResult",
    "Rung",
    "SamplingOptions",
    "Sink",
    "Source",
    "Stalled",
    "Step",
    "StepFacts",
    "StepNode",
    "TooManyDead",
    "UsageError",
    "Window",
    "__version__",
    "launch",
    "load_pipeline",
    "plan",
    "read",
    "retry",
    "run",
]

_MODULES = {
    "penstock.errors": [name for name in errors.__all__ if name != "DEAD_CODES"],
    "penstock.planner.fit": ("Memory",),
    "penstock.planner.result": ("ModelPlan", "Plan", "Rejected", "ReplicaPlan", "Rung"),
    "penstock.planning.plan": ("plan",),
    "penstock.report.facts": ("DeadExample", "PoolFacts", "ReplicaFacts", "RunFacts", "StepFacts"),
    "penstock.runtime.pool.api": ("LaunchedPool", "launch"),
    "penstock.runtime.pool.calls": ("Generation", "GenerationError"),
    "penstock.runtime.retry.retry": ("retry",),
    "penstock.runtime.run.api": ("run",),
    "penstock.runtime.run.options": ("RunOptions", "RunResult"),
    "penstock.spec.cluster": ("Cluster", "Node"),
    "penstock.spec.functions": ("FunctionRef",),
    "penstock.spec.graph": ("StepNode",),
    "penstock.spec.load": ("load_pipeline",),
    "penstock.spec.model": ("Model",),
    "penstock.spec.pipeline": ("Pipeline", "Reserve", "Resources", "Sink", "Source", "Window"),
    "penstock.spec.rows": ("Rows", "read"),
    "penstock.spec.sampling": ("SamplingOptions",),
    "penstock.spec.steps": ("Message", "Step", "Embed", "Expand", "Filter", "Generate", "Join", "Map"),
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
