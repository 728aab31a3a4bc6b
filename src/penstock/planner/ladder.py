"""Reduced memory settings for a replica that runs out of memory while loading, one step at a time.

    context         half of it, where nobody gave one; a shorter longest request needs less KV cache to be granted
    batch           fewer requests and tokens at once: activations shrink
    memory share    less of the device for the engine: something else lies there too
    tensor parallel twice the ranks, where the model's shape and the node's devices allow it; that is another plan

Each step keeps those before it. What a person has given is never changed.
"""

from __future__ import annotations

from penstock.planner.demand import PoolDemand
from penstock.planner.fit import AUTO_CONTEXT_TOKENS, SMALL_BATCHES
from penstock.planner.layout import ParallelLayout, shape_constraint
from penstock.planner.result import ReplicaPlan, Rung

__all__ = ["ladder"]

LOWER_UTILIZATIONS = (0.85, 0.75)


def ladder(demand: PoolDemand, replica: ReplicaPlan, max_model_len: int | None, node_devices: int) -> list[Rung]:
    """The steps below a replica's plan, nearest first.

    node_devices: free devices of its node, its own included; 0: it runs on the CPU
    """
    rungs: list[Rung] = []
    length: int | None = None
    if demand.max_model_len is None and max_model_len is not None:
        while (length or max_model_len) // 2 >= AUTO_CONTEXT_TOKENS:
            length = (length or max_model_len) // 2
            rungs.append(Rung(message=f"max_model_len {length:,}", max_model_len=length))
    batch: dict[str, int | None] = {"max_num_seqs": None, "max_num_batched_tokens": None}
    if demand.batch_seqs is None and demand.batch_tokens is None:
        for smaller in SMALL_BATCHES:
            seqs, tokens = smaller.max_num_seqs, smaller.max_num_batched_tokens
            if seqs < replica.max_num_seqs or tokens < replica.max_num_batched_tokens:
                batch = {"max_num_seqs": seqs, "max_num_batched_tokens": tokens}
                message = f"batches of {seqs} requests and {tokens:,} tokens"
                rungs.append(Rung(message=message, max_model_len=length, **batch))
    share: float | None = None
    if demand.utilization is None and node_devices:  # on the CPU the KV cache has a size of its own
        for share in LOWER_UTILIZATIONS:
            rungs.append(Rung(message=f"{share:.0%} of the device", max_model_len=length, utilization=share, **batch))
    wider = _wider(demand, replica, node_devices)
    if wider is not None:
        message = f"tensor_parallel {wider}"
        rungs.append(Rung(message=message, max_model_len=length, utilization=share, tensor_parallel=wider, **batch))
    return rungs


def _wider(demand: PoolDemand, replica: ReplicaPlan, node_devices: int) -> int | None:
    """Twice the ranks, or None where that can't be."""
    ranks = 2 * replica.tensor_parallel
    if demand.tensor_parallel is not None or demand.facts is None or not demand.rules.splits:
        return None
    wider = ParallelLayout(ranks, replica.pipeline_parallel)
    return None if ranks > node_devices or shape_constraint(demand.facts, wider) is not None else ranks
