"""Models and machines for the tests of the planner, and a packer that tries everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.planner.cluster import NodeFacts
from penstock.planner.demand import PoolDemand
from penstock.planner.model import Layer, ModelFacts, Weights

GB = 10**9


def dense(
    layers: int = 32, hidden: int = 4096, intermediate: int = 14336, heads: int = 32, kv_heads: int = 8,
    vocabulary: int = 128256, **changes: Any,
) -> ModelFacts:  # fmt: skip
    """A decoder like Llama-3.1-8B."""
    size = hidden // heads
    kv = 2 * hidden * kv_heads * size
    layer = Layer(
        Weights(linear=2 * hidden * hidden + kv + 3 * hidden * intermediate),
        Weights(plain=2 * hidden),
        Weights(linear=kv),
    )
    given: dict[str, Any] = {
        "ref": "dense", "architecture": "LlamaForCausalLM", "confidence": "exact", "layers": (layer,) * layers,
        "embedding": Weights(plain=vocabulary * hidden), "head": Weights(plain=vocabulary * hidden),
        "other": Weights(plain=hidden), "hidden": hidden, "intermediate": intermediate, "heads": heads,
        "kv_heads": kv_heads, "head_dim": size, "vocabulary": vocabulary, "windows": (0,) * layers,
        "max_position_embeddings": 131072,
    }  # fmt: skip
    return ModelFacts(**{**given, **changes})


def large() -> ModelFacts:
    """A decoder like Llama-3.1-70B."""
    return dense(layers=80, hidden=8192, intermediate=28672, heads=64)


def node(name: str = "a", devices: int = 8, memory_gb: float = 80, link: str = "nvlink", **changes: Any) -> NodeFacts:
    return NodeFacts(name=name, devices=devices, device_memory_bytes=int(memory_gb * GB), link=link, cpus=64, **changes)


def pool(name: str = "writer", facts: ModelFacts | None = None, **changes: Any) -> PoolDemand:
    return PoolDemand(name=name, names=(name,), facts=facts, **{"engine": "vllm", **changes})


def packable(items: Sequence[tuple[int, frozenset[int]]], free: Sequence[int]) -> bool:
    """Whether groups (size, nodes that they may lie on) all have a place: every way is tried."""
    if not items:
        return True
    (size, allowed), *rest = items
    tried = set()
    for index in sorted(allowed):
        key = (free[index], frozenset(i for i, (_, nodes) in enumerate(items) if index in nodes))
        if free[index] < size or key in tried:
            continue
        tried.add(key)
        left = [have - size if i == index else have for i, have in enumerate(free)]
        if packable(rest, left):
            return True
    return False
