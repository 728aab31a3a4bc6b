"""The plan, in the shape of `penstock plan --json` (contract: Plan)."""

from __future__ import annotations

from msgspec import Struct

from penstock.planner.fit import Memory

__all__ = ["ModelPlan", "Plan", "Rejected", "ReplicaPlan", "Rung"]


class ReplicaPlan(Struct, frozen=True, kw_only=True):
    """One replica. devices: NODE/gpu:N or NODE/cpu:N, stage by stage; memory: bytes of its fullest device.

    phases       those in which it is loaded, by index
    device_kind  name, memory and link of its smallest device; empty: CPU cores, or none
    """

    id: str
    nodes: tuple[str, ...]
    devices: tuple[str, ...]
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    memory: Memory = Memory()
    max_num_seqs: int = 1
    max_num_batched_tokens: int = 0
    kv_tokens: int = 0
    phases: tuple[int, ...] = (0,)
    device_kind: str = ""


class Rejected(Struct, frozen=True):
    """A layout that was not taken, and the first constraint that ruled it out."""

    layout: str
    reason: str


class Rung(Struct, frozen=True, kw_only=True):
    """How a replica is started that ran out of memory while it started (see ladder.py); None: as before.

    message: what changed, for users
    """

    message: str
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    utilization: float | None = None
    tensor_parallel: int | None = None


class ModelPlan(Struct, frozen=True, kw_only=True):
    """One pool. weights_bytes and kv_bytes_per_token are of the whole model.

    max_model_len  in tokens; None where the engine alone knows (mock, a remote service)
    confidence     exact | estimated | unknown architecture
    explanation    how max_model_len, batch limits and layout came about, one sentence each
    rungs          what a replica that runs out of memory at its start tries, one after the other
    """

    names: tuple[str, ...]
    ref: str = ""
    weights_bytes: int = 0
    kv_bytes_per_token: int = 0
    dtype: str = "auto"
    quantization: str | None = None
    max_model_len: int | None = None
    engine: str = ""
    confidence: str = "exact"
    replicas: tuple[ReplicaPlan, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    explanation: tuple[str, ...] = ()
    rungs: tuple[Rung, ...] = ()


class Plan(Struct, frozen=True, kw_only=True):
    """fits False: `reason` says need and have, `alternatives` what would fit, nearest first.

    phases  names of the pools that are loaded together, in the order in which they run
    notes   what is worth knowing beside it: devices taken by others, doubts about a model
    """

    fits: bool
    reason: str | None = None
    alternatives: tuple[str, ...] = ()
    models: dict[str, ModelPlan]
    phases: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
