"""Pools of a pipeline to what the planner is asked: engine, dtype, limits, and the facts of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from penstock import engine_info
from penstock.engine_info import EngineInfo, info_of, model_engines
from penstock.errors import ConfigError, MissingDependency
from penstock.planner.demand import GIB, PoolDemand
from penstock.planner.model import ModelFacts
from penstock.spec.engines import AUTO
from penstock.spec.identity import ModelPool
from penstock.spec.model import Model

__all__ = ["check_launchable", "demand_of", "engine_for"]

ReadFacts = Callable[[str, str | None], ModelFacts]


def engine_for(model: Model, *, here: bool) -> EngineInfo:
    """The engine that runs the model: the one answer for a plan and for what is started.

    here  on this machine, where what is installed decides; elsewhere, and where nothing that could run it is installed,
          a plan takes the engine that would be preferred
    """
    if model.resolved_engine != AUTO:
        return info_of(model.resolved_engine)
    able = _able(model)
    if here and model.python is None:
        return next((info for info in able if engine_info.is_installed(info)), able[0])
    return able[0]


def check_launchable(model: Model) -> None:
    """Raises MissingDependency with the command that installs the model's engine; ConfigError where only the user can
    say which one it is."""
    if model.python is not None:  # another interpreter: what is installed here says nothing of it
        if model.resolved_engine == AUTO:
            raise ConfigError(
                f"the model '{model.ref}' runs under {model.python}, which 'engine: auto' can't inspect; set its engine"
            )
        return
    info = engine_for(model, here=True)
    if engine_info.is_installed(info):
        return
    hints = [engine_info.install_hint(each) for each in _able(model) if each.runs(model.task)]
    if model.resolved_engine == AUTO and hints:
        raise MissingDependency(f"no engine is installed that can run '{model.ref}': {', or '.join(hints)}")
    if not info.adapter:
        raise ConfigError(f"the model '{model.ref}' needs the engine '{info.name}', which this version can't run yet")
    raise MissingDependency(
        f"the model '{model.ref}' needs the engine '{info.name}', which is not installed: "
        f"{engine_info.install_hint(info)}"
    )


def _able(model: Model) -> list[EngineInfo]:
    """The engines that `auto` chooses from, the preferred one first."""
    able = [info for info in model_engines() if info.preference and model.task in info.tasks]
    return sorted(able, key=lambda info: -info.preference)


def demand_of(pool: ModelPool, read: ReadFacts, *, on_gpus: bool, here: bool) -> PoolDemand:
    """Raises PlanError where the model's files can't be read, ConfigError for options of a wrong type."""
    model = pool.model
    info = engine_for(model, here=here)
    options = model.engine_options
    asked = {
        "name": pool.name,
        "names": tuple(pool.names),
        "engine": info.name,
        "replicas": _count(pool.replicas),
        "tensor_parallel": _count(model.tensor_parallel),
        "pipeline_parallel": _count(model.pipeline_parallel),
        "max_model_len": _count(model.max_model_len),
        "goal": "latency" if model.goal == "latency" else "throughput",
        "weight": model.weight,
    }
    if not info.devices:
        # A mock model occupies devices only where somebody says how it is divided: then it stands for a real one.
        grouped = info.devices_if_split and (asked["tensor_parallel"] or asked["pipeline_parallel"])
        slots = _number(options, info.slots_option) or info.slots
        return PoolDemand(**asked, needs_devices=bool(grouped), slots=int(slots))  # type: ignore[arg-type]
    facts = read(model.ref, model.revision)
    utilization = _number(options, "gpu_memory_utilization")
    return PoolDemand(
        **asked,  # type: ignore[arg-type]
        facts=facts,
        dtype=resolved_dtype(model.dtype, facts, info),
        quantization=model.quantization,
        utilization=float(utilization) if utilization else None,
        kv_bytes=_kv_bytes(options, info, on_gpus=on_gpus),
        kv_dtype_bytes=1 if str(options.get("kv_cache_dtype", "")).startswith("fp8") else 0,
        block_tokens=_whole(options, "block_size"),
        batch_seqs=_whole(options, "max_num_seqs"),
        batch_tokens=_whole(options, "max_num_batched_tokens"),
    )


def resolved_dtype(asked: str, facts: ModelFacts, info: EngineInfo) -> str:
    """What `auto` comes to: the model's own; some engines halve float32."""
    if asked != "auto":
        return asked
    return "bfloat16" if info.memory.halves_float32 and facts.stored_dtype == "float32" else facts.stored_dtype


def _count(value: int | str) -> int | None:
    return None if isinstance(value, str) else value


def _kv_bytes(options: Mapping[str, Any], info: EngineInfo, *, on_gpus: bool) -> int | None:
    given = _whole(options, "kv_cache_memory_bytes")
    if given is not None:
        return given
    gigabytes = _number(options, "kv_cache_gb")
    if gigabytes is None:
        return None
    if info.memory.cpu_kv_in_gib and not on_gpus:
        return max(1, round(gigabytes)) * GIB
    return int(gigabytes * 10**9)


def _number(options: Mapping[str, Any], name: str) -> float | None:
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise ConfigError(f"engine_options: {name}: expected a number above 0, got {value!r}")
    return float(value)


def _whole(options: Mapping[str, Any], name: str) -> int | None:
    value = _number(options, name)
    return None if value is None else int(value)
