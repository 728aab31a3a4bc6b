"""Whether one layout of one model fits devices of one kind: what stands where if it does, what forbids it if not."""

from __future__ import annotations

from msgspec import Struct

from penstock.planner.cluster import Kind
from penstock.planner.demand import BatchLimits, PoolDemand, batch_for
from penstock.planner.kv import KvLayout, kv_layout
from penstock.planner.layout import ParallelLayout, shape_constraint
from penstock.planner.memory import activation_bytes, framework_bytes, stage_weights_bytes
from penstock.planner.model import ModelFacts
from penstock.units import gigabytes

__all__ = ["Fit", "Memory", "context_length", "fit_on"]

AUTO_CONTEXT_TOKENS = 4096  # `max_model_len: auto` takes no layout whose KV cache holds less, if the model reads more
SMALL_BATCHES = (BatchLimits(256, 8192), BatchLimits(128, 2048))  # tried where the engine's own limits leave no room
ROUND_TOKENS = 1024  # a context cut down to what fits is a multiple of it, where it is that long


class Memory(Struct, frozen=True):
    """Bytes of one device, the fullest of a replica. The first four add up to the last.

    reserve: what the engine leaves alone, and what framework, graphs and communication take.
    """

    weights: int = 0
    kv: int = 0
    activations: int = 0
    reserve: int = 0
    device: int = 0


class Fit(Struct, frozen=True, kw_only=True):
    """constraint None: it fits. need_bytes: what the fullest device would have to hold, for reasons and ranking."""

    layout: ParallelLayout
    memory: Memory = Memory()
    max_model_len: int | None = None
    batch: BatchLimits = BatchLimits(1, 0)
    kv_tokens: int = 0
    lowered_batch: bool = False
    constraint: str | None = None

    @property
    def fits(self) -> bool:
        return self.constraint is None


def fit_on(demand: PoolDemand, layout: ParallelLayout, kind: Kind) -> Fit:
    """The model in this layout on devices of this kind."""
    facts = demand.facts
    if facts is None:
        empty = Memory(reserve=kind.memory_bytes, device=kind.memory_bytes)
        return Fit(layout=layout, memory=empty, batch=BatchLimits(demand.slots, 0), max_model_len=demand.max_model_len)
    if layout.devices > 1 and not demand.rules.splits:
        return Fit(layout=layout, constraint=f"the engine {demand.engine} does not support model parallelism")
    wrong = shape_constraint(facts, layout)
    if wrong is not None:
        return Fit(layout=layout, constraint=wrong)
    weights = stage_weights_bytes(facts, layout, demand.dtype, demand.quantization)
    if weights > kind.memory_bytes:
        constraint = f"weights {gigabytes(weights)}, device {gigabytes(kind.memory_bytes)}"
        return Fit(layout=layout, memory=Memory(weights=weights, device=kind.memory_bytes), constraint=constraint)
    return _with_batches(demand, facts, layout, kind, weights)


def _with_batches(demand: PoolDemand, facts: ModelFacts, layout: ParallelLayout, kind: Kind, weights: int) -> Fit:
    """With the engine's own limits of a batch, or with lower ones where only those leave room."""
    first = _with_batch(demand, facts, layout, kind, weights, batch_for(demand, kind, layout.devices))
    if first.fits or demand.batch_seqs or demand.batch_tokens:
        return first
    for batch in SMALL_BATCHES:
        lower = _with_batch(demand, facts, layout, kind, weights, batch)
        if lower.fits:
            return lower
    return first


def _with_batch(
    demand: PoolDemand, facts: ModelFacts, layout: ParallelLayout, kind: Kind, weights: int, batch: BatchLimits
) -> Fit:
    utilization = demand.utilization or demand.rules.utilization
    device = kind.memory_bytes
    activations = activation_bytes(facts, layout, batch, demand.dtype_bytes)
    outside = device - int(device * utilization) + framework_bytes(layout)
    room = device - outside - weights - activations
    lowered = batch != batch_for(demand, kind, layout.devices)
    if not demand.rules.has_kv or not (facts.windows or facts.state_layers):
        memory = Memory(weights, 0, activations, device - weights - activations, device)
        constraint = None if room >= 0 else _no_room(memory, outside, 0)
        length = min(demand.max_model_len or facts.max_position_embeddings, facts.max_position_embeddings)
        return Fit(
            layout=layout,
            memory=memory,
            batch=batch,
            constraint=constraint,
            lowered_batch=lowered,
            max_model_len=length,
        )
    kv_bytes = int(room * demand.rules.kv_share) if demand.kv_bytes is None else demand.kv_bytes
    kv = _kv(demand, facts, layout, batch)
    memory = Memory(weights, max(kv_bytes, 0), activations, device - weights - max(kv_bytes, 0) - activations, device)
    length, constraint = context_length(demand, facts, kv, kv_bytes)
    if room <= 0 or kv_bytes > room:
        constraint = _no_room(memory, outside, demand.kv_bytes or 0)
    tokens = 0 if constraint else kv.tokens(kv_bytes, length)
    return Fit(
        layout=layout, memory=memory, batch=batch, constraint=constraint, lowered_batch=lowered, max_model_len=length,
        kv_tokens=tokens,
    )  # fmt: skip


def _no_room(memory: Memory, outside: int, kv_bytes: int) -> str:
    asked = f" + KV cache {gigabytes(kv_bytes)} as requested" if kv_bytes else ""
    return (
        f"weights {gigabytes(memory.weights)} + activations {gigabytes(memory.activations)} + reserve "
        f"{gigabytes(outside)}{asked}, device {gigabytes(memory.device)}: no room for "
        f"{'it' if kv_bytes else 'a KV cache'}"
    )


def _kv(demand: PoolDemand, facts: ModelFacts, layout: ParallelLayout, batch: BatchLimits) -> KvLayout:
    element = demand.kv_dtype_bytes or demand.dtype_bytes
    passes = max(2, layout.pipeline_parallel)  # asynchronous scheduling keeps two under way
    return kv_layout(
        facts, layout, element, demand.block_tokens or demand.rules.block_tokens,
        passes * batch.max_num_batched_tokens, demand.rules.hybrid_kv,
    )  # fmt: skip


def context_length(demand: PoolDemand, facts: ModelFacts, kv: KvLayout, kv_bytes: int) -> tuple[int, str | None]:
    """The longest request that replicas take, and why it can't be had."""
    if demand.max_model_len is not None:
        least = length = demand.max_model_len
    else:
        least = min(AUTO_CONTEXT_TOKENS, facts.max_position_embeddings)
        length = kv.longest(kv_bytes, facts.max_position_embeddings)
        if ROUND_TOKENS < length < facts.max_position_embeddings:
            length -= length % ROUND_TOKENS
    if kv.request_bytes(least) <= kv_bytes and length >= least:
        return length, None
    need = gigabytes(kv.request_bytes(least))
    return least, f"KV for one request of {least:,} tokens needs {need}, {gigabytes(kv_bytes)} are left"
