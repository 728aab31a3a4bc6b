"""How one replica is divided: tensor parallel x pipeline parallel, and what of it a model's shape forbids."""

from __future__ import annotations

from typing import NamedTuple

from penstock.planner.model import ModelFacts

__all__ = ["ParallelLayout", "shape_constraint", "stage_layers"]

VOCABULARY_PADDING = 64  # entries: engines pad the vocabulary to a multiple of it before dividing it


class ParallelLayout(NamedTuple):
    tensor_parallel: int = 1
    pipeline_parallel: int = 1

    @property
    def devices(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel

    def __str__(self) -> str:
        return f"tp={self.tensor_parallel} pp={self.pipeline_parallel}"


def stage_layers(layers: int, stages: int) -> list[tuple[int, int]]:
    """(first, end) of the layers of each pipeline stage; as vLLM deals them (`distributed/utils.py`).

    What is left over goes to the middle: the first stage has the embedding, the last one the head.
    """
    sizes = [layers // stages] * stages
    for behind in range(2, layers % stages + 2):
        sizes[-behind] += 1
    bounds, start = [], 0
    for size in sizes:
        bounds.append((start, start + size))
        start += size
    return bounds


def shape_constraint(facts: ModelFacts, layout: ParallelLayout) -> str | None:
    """Why the model can't be divided like this, or None."""
    ranks, stages = layout
    if stages > len(facts.layers):
        return f"{stages} stages, and the model has {len(facts.layers)} layers"
    if ranks == 1:
        return None
    if facts.heads % ranks:
        return f"{facts.heads} attention heads are not divisible by {ranks}"
    if facts.kv_heads and facts.kv_heads % ranks and ranks % facts.kv_heads:
        return f"{facts.kv_heads} KV heads can neither be divided by {ranks} nor copied to {ranks} ranks evenly"
    padded = -(-facts.vocabulary // VOCABULARY_PADDING) * VOCABULARY_PADDING
    if padded % ranks:
        return f"the vocabulary, {padded:,} entries with padding, is not divisible by {ranks}"
    for name, size in (("intermediate", facts.intermediate), ("expert intermediate", facts.expert_intermediate)):
        if size % ranks:
            return f"the {name} size {size:,} is not divisible by {ranks}"
        if facts.group_size and size and (size // ranks) % facts.group_size:
            cut = f"{size:,} / {ranks} = {size // ranks:,}"
            return f"the {name} size {cut} cuts a quantization group of {facts.group_size}"
    return None
