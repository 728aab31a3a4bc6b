"""Which replicas a run has, on which devices, under which engine: from the pipeline and what this machine holds."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.core.planner.share import Demand, share
from penstock.engines import registry
from penstock.engines.messages import EngineConfig
from penstock.errors import ConfigError, MissingDependency, PlanError
from penstock.executors import binding
from penstock.spec.functions import FunctionRef
from penstock.spec.identity import Pool, pools
from penstock.spec.model import Model
from penstock.spec.pipeline import Pipeline
from penstock.spec.steps import Expand, Filter, Map

FunctionStep = Map | Filter | Expand

PYTHON_POOL = "python"
STUCK_S = 10.0  # over a call's own limit: a call that ignores it is ended with its worker
MAX_PYTHON_WORKERS = 4  # of the steps that name none: functions are seldom what a pipeline waits for


@dataclass(frozen=True)
class ReplicaPlan:
    """One replica: its id, its pool (index), devices as NODE/gpu:N or NODE/cpu:N, and how its host is started."""

    id: str
    pool: int
    devices: tuple[str, ...]
    config: EngineConfig
    env: dict[str, str]
    progress_timeout_s: float | None = None
    python: str | None = None
    functions: tuple[str, ...] = ()
    forked: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True)
class PoolPlan:
    """A pool and the steps (by index) whose requests it takes. kind: model | python."""

    name: str
    names: tuple[str, ...]
    kind: str
    steps: tuple[int, ...]


@dataclass(frozen=True)
class RunPlan:
    pools: tuple[PoolPlan, ...]
    replicas: tuple[ReplicaPlan, ...]
    pool_of_step: dict[int, int]
    forked: dict[int, Any] = field(default_factory=dict)  # step -> function that reaches workers by fork


def plan(pipeline: Pipeline) -> RunPlan:
    """Raises PlanError, MissingDependency or ConfigError; loads nothing."""
    nodes = pipeline.order()
    model_pools = pools(pipeline)
    placed: list[PoolPlan] = []
    replicas: list[ReplicaPlan] = []
    pool_of_step: dict[int, int] = {}
    steps_of = [tuple(n.index for n in nodes if getattr(n.step, "model", None) in pool.names) for pool in model_pools]
    needed = tuple(pool for pool, steps in zip(model_pools, steps_of, strict=True) if steps)
    shares = dict(
        zip((pool.name for pool in needed), _devices(needed, pipeline.resources.reserve.per_node), strict=True)
    )
    for index, (pool, steps) in enumerate(zip(model_pools, steps_of, strict=True)):
        placed.append(PoolPlan(pool.name, tuple(pool.names), "model", steps))
        pool_of_step.update(dict.fromkeys(steps, index))
        if steps:  # a model that no step uses is not loaded
            replicas += _replicas(pool, index, shares[pool.name])
    functions = {
        n.index: n.step for n in nodes if isinstance(n.step, (Map, Filter, Expand)) and n.step.function is not None
    }
    if functions:
        index = len(placed)
        placed.append(PoolPlan(PYTHON_POOL, (), "python", tuple(functions)))
        pool_of_step.update(dict.fromkeys(functions, index))
        replicas += _workers(pipeline, functions, index)
    forked = {place: _ref(step).resolve() for place, step in functions.items() if not _ref(step).is_importable}
    return RunPlan(tuple(placed), tuple(replicas), pool_of_step, forked)


# ---------------------------------------------------------------- engines


def resolve_engine(model: Model) -> str:
    """The engine that will run the model, checked to be installed where that can be known."""
    engine = model.resolved_engine
    if engine != "auto":
        if model.python is None and not registry.is_installed(engine):
            hint = registry.install_hint(engine)
            raise MissingDependency(
                f"the model '{model.ref}' needs the engine '{engine}', which is not installed: {hint}"
            )
        return engine
    if model.python is not None:
        raise ConfigError(
            f"the model '{model.ref}' runs under {model.python}, where 'engine: auto' can't look; name its engine"
        )
    for candidate in ("vllm", "transformers"):
        if registry.is_installed(candidate):
            return candidate
    raise MissingDependency(
        f"no engine is installed that could run '{model.ref}': {registry.install_hint('vllm')}, "
        f"or {registry.install_hint('transformers')}"
    )


@dataclass(frozen=True)
class _Share:
    """What one pool got: per replica its devices (GPU ids) or cores; both empty where the engine needs none."""

    engine: str
    gpus: tuple[tuple[str, ...], ...] = ()
    cores: tuple[tuple[int, ...], ...] = ()
    count: int = 1


def _devices(model_pools: tuple[Pool, ...], reserve: int) -> list[_Share]:
    engines = [resolve_engine(pool.model) for pool in model_pools]
    needy = [index for index, engine in enumerate(engines) if registry.needs_devices(engine)]
    gpus = binding.visible_gpus() if needy else []
    gpus = gpus[: max(0, len(gpus) - reserve)]
    cores = sorted(os.sched_getaffinity(0))
    demands = [_demand(model_pools[index], on_gpus=bool(gpus)) for index in needy]
    found = share(demands, len(gpus) if gpus else len(cores), "GPU" if gpus else "CPU core")
    if not found.fits:
        raise PlanError(found.reason)
    shares: list[_Share] = []
    for index, engine in enumerate(engines):
        if index not in needy:
            count = model_pools[index].replicas
            shares.append(_Share(engine, count=1 if count == "auto" else int(count)))
            continue
        groups = found.groups[needy.index(index)]
        if gpus:
            shares.append(_Share(engine, gpus=tuple(tuple(gpus[i] for i in group) for group in groups)))
        else:
            shares.append(_Share(engine, cores=tuple(tuple(cores[i] for i in group) for group in groups)))
    return shares


def _demand(pool: Pool, *, on_gpus: bool) -> Demand:
    model = pool.model
    size = 1
    for width in (model.tensor_parallel, model.pipeline_parallel):
        size *= 1 if width == "auto" else int(width)
    replicas = None if pool.replicas == "auto" else int(pool.replicas)
    return Demand(pool.name, size, replicas, spread=not on_gpus)


# ---------------------------------------------------------------- replicas


def _replicas(pool: Pool, index: int, got: _Share) -> list[ReplicaPlan]:
    node = socket.gethostname()
    count = len(got.gpus) or len(got.cores) or got.count
    made = []
    for number in range(count):
        gpus = got.gpus[number] if got.gpus else ()
        cores = got.cores[number] if got.cores else ()
        devices = tuple(f"{node}/gpu:{gpu}" for gpu in gpus) or tuple(f"{node}/cpu:{core}" for core in cores)
        config = engine_config(pool.model, got.engine, gpus, cores)
        made.append(
            ReplicaPlan(
                id=f"{pool.name}-{number}",
                pool=index,
                devices=devices or (f"{node}/cpu:{number % (os.cpu_count() or 1)}",),
                config=config,
                env=binding.environment_for(config),
                progress_timeout_s=pool.model.progress_timeout_s,
                python=pool.model.python,
            )
        )
    return made


def engine_config(model: Model, engine: str, gpus: tuple[str, ...], cores: tuple[int, ...]) -> EngineConfig:
    urls = model.base_url or ()
    return EngineConfig(
        engine=engine,
        ref=_local_ref(model.ref),
        revision=model.revision,
        task=model.task,
        dtype=model.dtype,
        quantization=model.quantization,
        max_model_len=None if model.max_model_len == "auto" else int(model.max_model_len),
        tensor_parallel=1 if model.tensor_parallel == "auto" else int(model.tensor_parallel),
        pipeline_parallel=1 if model.pipeline_parallel == "auto" else int(model.pipeline_parallel),
        engine_options=dict(model.engine_options),
        base_urls=(urls,) if isinstance(urls, str) else tuple(urls),
        cores=cores,
        devices=gpus,
    )


def _local_ref(ref: str) -> str:
    """A folder's full path, since hosts may run elsewhere; any other ref as it is."""
    path = Path(ref).expanduser()
    return str(path.resolve()) if path.is_dir() else ref


def _workers(pipeline: Pipeline, functions: dict[int, FunctionStep], index: int) -> list[ReplicaPlan]:
    """Workers of the Python steps; each can run every function."""
    asked = [step.workers for step in functions.values() if isinstance(step.workers, int)]
    cores = len(os.sched_getaffinity(0))
    count = max(asked) if asked else max(1, min(MAX_PYTHON_WORKERS, cores // 2))
    names = tuple(_name(functions.get(place)) for place in range(len(pipeline.steps)))
    timeout_s = max(step.timeout_s for step in functions.values())
    node = socket.gethostname()
    return [
        ReplicaPlan(
            id=f"{PYTHON_POOL}-{number}",
            pool=index,
            devices=(f"{node}/cpu:{number % cores}",),
            config=EngineConfig(engine="python", ref="python", task="python"),
            env={},
            functions=names,
            forked=any(not _ref(step).is_importable for step in functions.values()),
            timeout_s=timeout_s,
            progress_timeout_s=timeout_s + STUCK_S,
        )
        for number in range(count)
    ]


def _name(step: FunctionStep | None) -> str:
    return "" if step is None else _ref(step).name


def _ref(step: FunctionStep) -> FunctionRef:
    assert step.function is not None
    return step.function
