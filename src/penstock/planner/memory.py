"""Memory of one device of a replica: weights, KV cache, activations, and the reserve of engine and framework.

vLLM's rule: KV cache = utilization x device - weights - peak of a full forward pass - what lies outside the allocator.
The four parts add up to the device. Sources of the constants stand where they do; design/0006 tells how far to trust
them.
"""

from __future__ import annotations

from penstock.planner.demand import BatchLimits
from penstock.planner.layout import ParallelLayout, stage_layers
from penstock.planner.model import ModelFacts, Weights, weight_rates

__all__ = ["activation_bytes", "framework_bytes", "stage_weights_bytes"]

CONTEXT_BYTES = 600_000_000  # CUDA context, kernels and library workspaces of one process
GRAPHS_BYTES = 500_000_000  # captured CUDA graphs of the usual batch sizes
COLLECTIVES_BYTES = 600_000_000  # NCCL channels and all-reduce buffers, where there is more than one rank
SAMPLER_BYTES = 10  # of one logit: as computed, as float32, and sorted or normalised
RESIDUAL_COPIES = 4  # of the hidden state alive at once: residual, normed, in and out of a block


def framework_bytes(layout: ParallelLayout) -> int:
    return CONTEXT_BYTES + GRAPHS_BYTES + (COLLECTIVES_BYTES if layout.devices > 1 else 0)


def stage_weights_bytes(facts: ModelFacts, layout: ParallelLayout, dtype: str, quantization: str | None) -> int:
    """Of the fullest device: of the first, a middle or the last stage, whichever has most."""
    ranks, stages = layout
    rates = weight_rates(dtype, quantization)
    bounds = stage_layers(len(facts.layers), stages)
    fullest = 0
    for stage, (start, end) in enumerate(bounds):
        held = _outer_bytes(facts, stage == 0, stage == stages - 1, ranks, rates)
        for layer in facts.layers[start:end]:
            held += layer.divided.size_bytes(*rates) // ranks + layer.copied.size_bytes(*rates)
            if facts.kv_heads and ranks > facts.kv_heads:
                kv = layer.kv_projection.size_bytes(*rates)
                held += kv // facts.kv_heads - kv // ranks
        fullest = max(fullest, held)
    return fullest


def _outer_bytes(facts: ModelFacts, first: bool, last: bool, ranks: int, rates: tuple[float, float]) -> int:
    """Embedding, head and the rest. A tied matrix is needed at both ends of a pipeline."""
    divided = Weights()
    if first:
        divided = divided + facts.embedding
    if last:
        divided = divided + (facts.embedding if facts.tied and not first else facts.head)
    # Vocabulary matrices stay in the dtype whatever the quantization of the linear layers.
    held = divided.size_bytes(rates[0], rates[0]) // ranks
    return held + (facts.other.size_bytes(rates[0], rates[0]) if first else 0)


def activation_bytes(facts: ModelFacts, layout: ParallelLayout, batch: BatchLimits, dtype_bytes: int) -> int:
    """Peak of a forward pass of `max_num_batched_tokens`, or of sampling for `max_num_seqs` after it."""
    ranks = layout.tensor_parallel
    attention = (facts.heads + 2 * max(facts.kv_heads, 1)) * facts.head_dim // ranks + facts.hidden
    # Gate and up projections and their product; of experts also what each token's experts put out.
    dense = 3 * facts.intermediate // ranks
    experts = facts.experts_per_token * (3 * facts.expert_intermediate // ranks + facts.hidden)
    per_token = RESIDUAL_COPIES * facts.hidden + max(attention, dense, experts)
    forward = batch.max_num_batched_tokens * per_token * dtype_bytes
    sampling = batch.max_num_seqs * facts.vocabulary * SAMPLER_BYTES if facts.kv_heads or facts.latent else 0
    return max(forward, sampling + batch.max_num_batched_tokens * facts.hidden * dtype_bytes)
