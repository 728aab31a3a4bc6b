"""Pools of a pipeline to what the planner is asked: engine, dtype, limits, and the facts of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from penstock.engines import registry
from penstock.errors import ConfigError
from penstock.planner.demand import GIB, PoolDemand
from penstock.planner.model import ModelFacts
from penstock.spec.identity import Pool
from penstock.spec.model import Model

__all__ = ["demand_of", "engine_for"]

ReadFacts = Callable[[str, str | None], ModelFacts]
MOCK_SLOTS, OPENAI_SLOTS = 1, 64
AUTO_ENGINES = ("vllm", "transformers")  # the first that is installed runs a model


def engine_for(model: Model, *, here: bool) -> str:
    """The engine that will run the model. `here`: on this machine, where what is installed decides; elsewhere the
    plan takes vLLM, the engine for many requests at once."""
    engine = model.resolved_engine
    if engine != "auto":
        return engine
    if model.task == "embed":
        return "sentence-transformers"
    if here and model.python is None:
        return next((name for name in AUTO_ENGINES if registry.is_installed(name)), "vllm")
    return "vllm"


def demand_of(pool: Pool, read: ReadFacts, *, on_gpus: bool, here: bool) -> PoolDemand:
    """Raises PlanError where the model's files can't be read, ConfigError for options of a wrong type."""
    model = pool.model
    engine = engine_for(model, here=here)
    options = model.engine_options
    asked = {
        "name": pool.name,
        "names": tuple(pool.names),
        "engine": engine,
        "replicas": _count(pool.replicas),
        "tensor_parallel": _count(model.tensor_parallel),
        "pipeline_parallel": _count(model.pipeline_parallel),
        "max_model_len": _count(model.max_model_len),
        "goal": "latency" if model.goal == "latency" else "throughput",
        "weight": model.weight,
    }
    if engine in ("mock", "openai"):
        # A mock model occupies devices only where somebody says how it is divided: then it stands for a real one.
        grouped = engine == "mock" and (asked["tensor_parallel"] or asked["pipeline_parallel"])
        default = MOCK_SLOTS if engine == "mock" else OPENAI_SLOTS
        slots = _number(options, "slots" if engine == "mock" else "concurrency") or default
        return PoolDemand(**asked, needs_devices=bool(grouped), slots=int(slots))  # type: ignore[arg-type]
    facts = read(model.ref, model.revision)
    utilization = _number(options, "gpu_memory_utilization")
    return PoolDemand(
        **asked,  # type: ignore[arg-type]
        facts=facts,
        dtype=resolved_dtype(model.dtype, facts, engine),
        quantization=model.quantization,
        utilization=float(utilization) if utilization else None,
        kv_bytes=_kv_bytes(options, engine, on_gpus=on_gpus),
        kv_dtype_bytes=1 if str(options.get("kv_cache_dtype", "")).startswith("fp8") else 0,
        block_tokens=_whole(options, "block_size"),
        batch_seqs=_whole(options, "max_num_seqs"),
        batch_tokens=_whole(options, "max_num_batched_tokens"),
    )


def resolved_dtype(asked: str, facts: ModelFacts, engine: str) -> str:
    """What `auto` comes to: the model's own, where vLLM halves float32."""
    if asked != "auto":
        return asked
    return "bfloat16" if engine == "vllm" and facts.stored_dtype == "float32" else facts.stored_dtype


def _count(value: int | str) -> int | None:
    return None if isinstance(value, str) else value


def _kv_bytes(options: Mapping[str, Any], engine: str, *, on_gpus: bool) -> int | None:
    given = _whole(options, "kv_cache_memory_bytes")
    if given is not None:
        return given
    gigabytes = _number(options, "kv_cache_gb")
    if gigabytes is None:
        return None
    if engine == "vllm" and not on_gpus:
        return max(1, round(gigabytes)) * GIB  # vLLM on the CPU counts in whole GiB
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
