"""The demand of a pool; the rules of its engine are in the engine's record."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from penstock.engine_info import GIB, MemoryRules, info_of
from penstock.planner.cluster import Kind
from penstock.planner.model import DTYPE_BYTES, ModelFacts

__all__ = ["GIB", "BatchLimits", "PoolDemand", "Sharing", "batch_for"]


class BatchLimits(Struct, frozen=True):
    """Most requests at once, and most tokens in one forward pass. in_flight: passes that may overlap."""

    max_num_seqs: int
    max_num_batched_tokens: int


class Sharing(Struct, frozen=True):
    """How several pools share the devices.

    strategy          even | priority
    reserve_per_node  devices that stay free
    load              auto: together where they fit, else in phases | together | phases: each pool by itself
    """

    strategy: str = "even"
    reserve_per_node: int = 0
    load: Literal["auto", "together", "phases"] = "auto"


class PoolDemand(Struct, frozen=True, kw_only=True):
    """One pool: its model, and what was asked for. None stands for auto.

    facts           None: a model without weights of its own here (mock, a remote service)
    needs_devices   False: replicas take none
    replicas        None: as many as the free devices hold
    utilization     of device memory (`gpu_memory_utilization`), None: the engine's own default
    kv_bytes        KV cache per device, where it is given rather than taken from what is left
    kv_dtype_bytes  of one element of the KV cache; 0: as wide as the dtype
    batch_seqs, batch_tokens  limits that were given
    weight          share of the devices among several pools
    slots           most requests at once of a model without devices
    """

    name: str
    names: tuple[str, ...]
    facts: ModelFacts | None = None
    engine: str
    needs_devices: bool = True
    replicas: int | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    max_model_len: int | None = None
    dtype: str = "bfloat16"
    quantization: str | None = None
    goal: Literal["throughput", "latency"] = "throughput"
    weight: float = 1.0
    utilization: float | None = None
    kv_bytes: int | None = None
    kv_dtype_bytes: int = 0
    block_tokens: int | None = None
    batch_seqs: int | None = None
    batch_tokens: int | None = None
    slots: int = 1

    @property
    def rules(self) -> MemoryRules:
        return info_of(self.engine).memory

    @property
    def ranks(self) -> int:
        """Devices of one replica, as far as they were given."""
        return (self.tensor_parallel or 1) * (self.pipeline_parallel or 1)

    @property
    def dtype_bytes(self) -> int:
        return DTYPE_BYTES[self.dtype]


def batch_for(demand: PoolDemand, kind: Kind | None, ranks: int) -> BatchLimits:
    """The engine's default limits for a device; `kind` None: on the CPU, with `ranks` ranks."""
    defaults = info_of(demand.engine).batch
    if kind is None:
        seqs, tokens = (limit * ranks for limit in defaults.cpu)
    elif defaults.large_gpu is not None and _is_large(kind):
        seqs, tokens = defaults.large_gpu
    else:
        seqs, tokens = defaults.gpu
    tokens = demand.batch_tokens or tokens
    return BatchLimits(demand.batch_seqs or min(seqs, tokens), tokens)


def _is_large(kind: Kind) -> bool:
    """As vLLM has it: A100s have the memory for larger batches, but lose throughput by them."""
    return kind.memory_bytes >= 160 * GIB or (kind.memory_bytes >= 70 * GIB and "a100" not in kind.name.lower())
