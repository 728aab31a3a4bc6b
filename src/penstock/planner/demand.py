"""What a pool asks of the planner, and the few rules of an engine that arithmetic needs."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from penstock.planner.cluster import Kind
from penstock.planner.model import DTYPE_BYTES, ModelFacts

__all__ = ["Batch", "EngineRules", "PoolDemand", "Sharing", "batch_for", "rules_for"]

GIB = 2**30


class EngineRules(Struct, frozen=True, kw_only=True):
    """How an engine lays out memory.

    splits        whether it divides a model over devices
    utilization   share of a device that it may fill by default
    block_tokens  tokens of a KV block, and of one on the CPU
    hybrid_kv     whether layers with a sliding window keep only their window
    kv_share      share of what the weights leave that becomes KV cache
    cpu_kv_bytes  KV cache on the CPU where nobody says how much
    has_kv        whether it keeps a KV cache at all
    process_bytes resident memory of a replica's processes on the CPU beside weights and KV
    """

    splits: bool = True
    utilization: float = 0.92
    block_tokens: int = 16
    cpu_block_tokens: int = 128
    hybrid_kv: bool = True
    kv_share: float = 1.0
    cpu_kv_bytes: int = GIB
    has_kv: bool = True
    process_bytes: int = 1_500_000_000


RULES = {
    "vllm": EngineRules(),
    "transformers": EngineRules(
        splits=False, utilization=0.97, block_tokens=1, cpu_block_tokens=1, hybrid_kv=False, kv_share=0.8,
        cpu_kv_bytes=2_000_000_000, process_bytes=700_000_000,
    ),
    "sentence-transformers": EngineRules(splits=False, utilization=0.90, has_kv=False, process_bytes=700_000_000),
}  # fmt: skip


def rules_for(engine: str) -> EngineRules:
    """Of an engine by name; one that is not known here is taken to do as vLLM does."""
    return RULES.get(engine, RULES["vllm"])


class Batch(Struct, frozen=True):
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
    engine: str = "vllm"
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
    def rules(self) -> EngineRules:
        return rules_for(self.engine)

    @property
    def ranks(self) -> int:
        """Devices of one replica, as far as they were given."""
        return (self.tensor_parallel or 1) * (self.pipeline_parallel or 1)

    @property
    def dtype_bytes(self) -> int:
        return DTYPE_BYTES[self.dtype]


def batch_for(demand: PoolDemand, kind: Kind | None, ranks: int) -> Batch:
    """The engine's default limits for a device; `kind` None: on the CPU, with `ranks` ranks.

    vLLM's: `EngineArgs.get_batch_defaults` for its offline class, where A100s keep the smaller limits.
    """
    if demand.engine == "transformers":
        seqs, tokens = (128, 8192) if kind else (64, 2048)
    elif demand.engine == "sentence-transformers":
        seqs, tokens = (256, 16384) if kind else (32, 4096)
    elif kind is None:
        seqs, tokens = 256 * ranks, 4096 * ranks
    elif kind.memory_bytes >= 160 * GIB or (kind.memory_bytes >= 70 * GIB and "a100" not in kind.name.lower()):
        seqs, tokens = 1024, 16384
    else:
        seqs, tokens = 256, 8192
    tokens = demand.batch_tokens or tokens
    return Batch(demand.batch_seqs or min(seqs, tokens), tokens)
