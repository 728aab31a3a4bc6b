"""The KV cache: bytes of a block, and how many tokens a budget holds.

A block holds `block_tokens` tokens of a group of layers. With layers of one sort there is one group. Where some layers
have a sliding window, vLLM makes groups of equal numbers of layers that draw blocks from one pool
(`v1/core/kv_cache_utils.py`): a request takes blocks from each, in a windowed group only for its window and for what is
in flight. So tokens depend on the longest request, and blocks do not.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.planner.layout import ParallelLayout, stage_layers
from penstock.planner.model import ModelFacts

__all__ = ["KvLayout", "kv_layout", "layer_bytes_per_token", "model_bytes_per_token"]

PADDED_GROUP_RATIO = 1.5  # vLLM: sorts of layers whose numbers are nearer than this are padded to one size


class KvLayout(NamedTuple):
    """block_bytes: of one block on the fullest device. full_groups, windowed_groups: groups a request draws from."""

    block_bytes: int
    block_tokens: int
    full_groups: int
    windowed_groups: int
    window: int
    in_flight_tokens: int

    def blocks(self, budget_bytes: int) -> int:
        return max(budget_bytes, 0) // self.block_bytes if self.block_bytes else 0

    def blocks_of_request(self, length: int) -> int:
        """Blocks that a request of `length` tokens may hold at most."""
        blocks = self.full_groups * -(-length // self.block_tokens)
        if self.windowed_groups:
            held = min(self.window - 1 + self.in_flight_tokens, length)
            # One more: the window need not begin where a block begins.
            blocks += self.windowed_groups * (-(-held // self.block_tokens) + 1)
        return blocks

    def tokens(self, budget_bytes: int, length: int) -> int:
        """Tokens that the budget holds, in requests of `length` tokens."""
        blocks = self.blocks(budget_bytes)
        if self.windowed_groups == 0:
            return blocks * self.block_tokens // max(self.full_groups, 1)
        return int(blocks / self.blocks_of_request(length) * length)

    def longest(self, budget_bytes: int, limit: int) -> int:
        """The longest request, `limit` at most, that fits beside the one block an engine keeps for itself."""
        usable = self.blocks(budget_bytes) - 1
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            if self.blocks_of_request(middle) <= usable:
                low = middle
            else:
                high = middle - 1
        return low

    def request_bytes(self, length: int) -> int:
        """What the budget must be for one request of `length` tokens."""
        return (self.blocks_of_request(length) + 1) * self.block_bytes


def layer_bytes_per_token(facts: ModelFacts, ranks: int, element_bytes: int) -> int:
    """Of one layer on one rank. KV heads are divided among ranks and copied where ranks outnumber them; the latent of
    MLA is one vector for all heads, so every rank holds it."""
    if facts.latent:
        return facts.latent * element_bytes
    heads = max(1, facts.kv_heads // ranks) if facts.kv_heads else 0
    return heads * (facts.head_dim + (facts.value_dim or facts.head_dim)) * element_bytes


def model_bytes_per_token(facts: ModelFacts, element_bytes: int) -> int:
    """Of the whole model, undivided, while no window is full."""
    return len(facts.windows) * layer_bytes_per_token(facts, 1, element_bytes)


def kv_layout(
    facts: ModelFacts,
    layout: ParallelLayout,
    element_bytes: int,
    block_tokens: int,
    in_flight_tokens: int,
    hybrid: bool,
) -> KvLayout:
    """`hybrid` False: layers with a window are given as much as the others."""
    per_layer = layer_bytes_per_token(facts, layout.tensor_parallel, element_bytes) * block_tokens
    windowed = sum(1 for window in facts.windows if window)
    full = len(facts.windows) - windowed
    window = max(facts.windows, default=0)
    if not windowed or (full and not hybrid) or not hybrid:
        return KvLayout(_most(facts, layout) * per_layer, block_tokens, 1, 0, 0, 0)
    if not full:
        return KvLayout(_most(facts, layout) * per_layer, block_tokens, 0, 1, window, in_flight_tokens)
    size = min(full, windowed)
    if max(full, windowed) < PADDED_GROUP_RATIO * size:
        size = max(full, windowed)
    per_stage = -(-size // layout.pipeline_parallel)
    return KvLayout(
        per_stage * per_layer, block_tokens, -(-full // size), -(-windowed // size), window, in_flight_tokens
    )


def _most(facts: ModelFacts, layout: ParallelLayout) -> int:
    """Layers with a KV cache on the device that has most of them."""
    if layout.pipeline_parallel == 1 or not facts.layers:
        return len(facts.windows)
    share = len(facts.windows) / len(facts.layers)
    most = max(end - start for start, end in stage_layers(len(facts.layers), layout.pipeline_parallel))
    return max(1, round(share * most)) if facts.windows else 0
