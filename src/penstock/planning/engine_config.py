"""From a model and its place in the plan to the engine configuration that a host loads."""

from __future__ import annotations

from pathlib import Path

import msgspec

from penstock.engine_info import info_of
from penstock.planner.result import ModelPlan, ReplicaPlan, Rung
from penstock.protocol.messages import EngineConfig
from penstock.spec.model import Model

__all__ = ["engine_config", "lowered"]


def engine_config(model: Model, planned: ModelPlan, placed: ReplicaPlan, *, sleeps: bool = False) -> EngineConfig:
    """What the host of one replica loads, with the engine that the plan was made for.

    Devices keep the names of the plan: NODE/gpu:TOKEN.

    sleeps: its pool is to sleep between two phases, which some engines have to know when they load
    """
    holds_devices = info_of(planned.engine).devices
    gpus = tuple(name for name in placed.devices if "/gpu:" in name)
    numbers = [int(name.rpartition(":")[2]) for name in placed.devices if "/cpu:" in name]
    cores = tuple(numbers) if holds_devices else ()  # an engine without devices runs wherever there is time
    real = planned.ref != "" and holds_devices  # the plan has figures of it
    return EngineConfig(
        engine=planned.engine,
        ref=_local_ref(model.ref),
        revision=model.revision,
        task=model.task,
        dtype=model.dtype,
        quantization=model.quantization,
        max_model_len=(planned.max_model_len if real else _count(model.max_model_len)) or None,
        tensor_parallel=placed.tensor_parallel,
        pipeline_parallel=placed.pipeline_parallel,
        engine_options=dict(model.engine_options),
        base_urls=model.base_urls,
        cores=cores,
        devices=gpus,
        max_num_seqs=placed.max_num_seqs if real else None,
        max_num_batched_tokens=placed.max_num_batched_tokens or None if real else None,
        kv_bytes=placed.memory.kv or None if real and cores else None,  # on GPUs the engine measures what is left
        sleeps=sleeps,
    )


def lowered(config: EngineConfig, rung: Rung) -> EngineConfig:
    """The same replica, one step down after it ran out of memory at its start."""
    changes = {
        name: value
        for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "utilization")
        if (value := getattr(rung, name)) is not None
    }
    return msgspec.structs.replace(config, **changes)


def _count(value: int | str) -> int | None:
    return None if isinstance(value, str) else value


def _local_ref(ref: str) -> str:
    """A folder's full path, since hosts may run elsewhere; any other ref as it is."""
    path = Path(ref).expanduser()
    return str(path.resolve()) if path.is_dir() else ref
