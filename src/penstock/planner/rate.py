"""How fast a layout is beside another one, estimated: tokens per unit of time, for ranking and for nothing else.

A decoding step reads the weights of a device and the KV cache of its requests, or computes them, whichever takes
longer, and pays for two all-reduces in every layer. Time is measured in bytes read from device memory, so that only
ratios of a device's rates are needed; those of the devices of one kind are alike, and their differences between kinds
move the ranking little.
"""

from __future__ import annotations

from penstock.planner.cluster import Kind
from penstock.planner.demand import PoolDemand
from penstock.planner.fit import Fit
from penstock.planner.kv import layer_bytes_per_token
from penstock.planner.model import ModelFacts

__all__ = ["REQUEST_TOKENS", "decode_rate", "latency_cost", "step_cost"]

REQUEST_TOKENS = 1024  # of prompt and output that a request holds on average while it decodes
OPERATIONS_PER_BYTE = 200  # of a device: 153 (A100) to 295 (H100)
# An all-reduce of a small tensor, as bytes that memory could have read meanwhile: 10 us of 3 TB/s, 30 us of 1 TB/s.
ALL_REDUCE_BYTES = 30_000_000
# Memory bandwidth over link bandwidth: 3,350 / 450 GB/s, 1,000 / 32 GB/s.
FAST_LINK_RATIO, SLOW_LINK_RATIO = 7.5, 31.0


def step_cost(demand: PoolDemand, facts: ModelFacts, fit: Fit, kind: Kind, requests: float) -> float:
    """Time of one step of one pipeline stage with so many requests in it, in bytes of device memory."""
    ranks, stages = fit.layout
    element = demand.kv_dtype_bytes or demand.dtype_bytes
    layers = len(facts.layers) / stages
    kv = layer_bytes_per_token(facts, ranks, element) * min(layers, len(facts.windows))
    read = fit.memory.weights + requests * REQUEST_TOKENS * kv
    computed = requests * 2 * _active_parameters(facts) / fit.layout.devices / OPERATIONS_PER_BYTE
    cost = max(read, computed)
    if ranks > 1:
        ratio = FAST_LINK_RATIO if kind.fast else SLOW_LINK_RATIO
        moved = 2 * (ranks - 1) / ranks * requests * facts.hidden * demand.dtype_bytes
        cost += 2 * layers * (ALL_REDUCE_BYTES + moved * ratio)
    return cost


def decode_rate(demand: PoolDemand, fit: Fit, kind: Kind) -> float:
    """Tokens a replica makes in the time of reading a byte; with as many requests as it has room for.

    Stages of a pipeline work at the same time, each on its share of the requests.
    """
    facts = demand.facts
    if facts is None:
        return 1.0
    seats = float(fit.batch.max_num_seqs)
    if fit.kv_tokens:
        seats = min(seats, max(1.0, fit.kv_tokens / min(REQUEST_TOKENS, fit.max_model_len or REQUEST_TOKENS)))
    stages = fit.layout.pipeline_parallel
    per_stage = max(seats / stages, 1.0)
    filled = min(seats / stages, 1.0)  # fewer requests than stages leave stages empty
    return filled * per_stage / step_cost(demand, facts, fit, kind, per_stage)


def latency_cost(demand: PoolDemand, fit: Fit, kind: Kind) -> float:
    """Time of one token of one request alone: it goes through all stages."""
    if demand.facts is None:
        return 1.0
    return fit.layout.pipeline_parallel * step_cost(demand, demand.facts, fit, kind, 1.0)


def _active_parameters(facts: ModelFacts) -> float:
    """Parameters that a token meets, from the bytes of the layers; of experts only those it is sent to."""
    total = 0.0
    for layer in facts.layers:
        total += layer.divided.linear + layer.divided.packed + layer.copied.linear
    if not facts.experts:
        return total
    experts = 3 * facts.experts * facts.hidden * facts.expert_intermediate * len(facts.layers)
    idle = min(experts, total) * (1 - facts.experts_per_token / facts.experts)
    return max(total - idle, 1.0)
