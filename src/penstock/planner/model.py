"""What the planner knows of a model: how many bytes lie where when it is split, and what a token leaves behind.

Plain numbers, read elsewhere from config.json and the headers of safetensors files. Nothing here is loaded.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["DTYPE_BYTES", "ONLINE_BYTES", "Layer", "ModelFacts", "Weights", "weight_rates"]

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
# Quantization that an engine does while it loads float weights: bytes per parameter of a linear layer.
# bitsandbytes: 4 bits and one absolute maximum of 8 bits for 64 weights.
ONLINE_BYTES = {"fp8": 1.0, "int8": 1.0, "experts_int8": 1.0, "bitsandbytes": 0.516}

Confidence = Literal["exact", "estimated", "unknown architecture"]


class Weights(Struct, frozen=True):
    """Parameters of one part of a model, by what becomes of them on loading.

    linear  floating-point parameters of linear layers: cast to the dtype, or shrunk by a quantization
    plain   other floating-point parameters (norms, biases, embeddings): cast to the dtype
    packed  bytes that stay as they are stored (quantized weights, their scales and zero points)
    """

    linear: int = 0
    plain: int = 0
    packed: int = 0

    def __add__(self, other: Weights) -> Weights:
        return Weights(self.linear + other.linear, self.plain + other.plain, self.packed + other.packed)

    def size_bytes(self, dtype_bytes: float, linear_bytes: float) -> int:
        return round(self.linear * linear_bytes + self.plain * dtype_bytes) + self.packed


class Layer(Struct, frozen=True):
    """One decoder layer.

    divided        what tensor parallelism divides
    copied         what every rank of a tensor-parallel group holds (norms, routers, the down-projections of MLA)
    kv_projection  the part of `divided` that makes keys and values: ranks share whole heads, so with more ranks than
                   KV heads it is copied
    """

    divided: Weights
    copied: Weights = Weights()
    kv_projection: Weights = Weights()


class ModelFacts(Struct, frozen=True, kw_only=True):
    """One model. Counts are per model unless said otherwise; sizes of layers in elements, windows in tokens.

    layers            the decoder layers, first to last
    embedding, head   vocabulary matrices; a tied head is empty here and counted by `tied`
    other             what is none of these (final norm, vision towers): every device of the first stage holds it
    heads, kv_heads   query heads and KV heads; kv_heads 0: a model without a KV cache (an encoder)
    value_dim         size of a value head, where it differs from the key's; else equal to head_dim
    windows           per layer with a KV cache its sliding window, 0: attends to everything
    latent            elements a token leaves per layer with multi-head latent attention, else 0
    state_layers      layers with a constant state in place of a KV cache
    group_size        of a stored group-wise quantization: tensor parallelism must not cut a group. 0: none
    stored_bytes      of all weight files, also of parts that are not loaded
    doubts            what about these facts is not certain, one sentence each
    """

    ref: str
    architecture: str
    confidence: Confidence
    layers: tuple[Layer, ...]
    embedding: Weights = Weights()
    head: Weights = Weights()
    other: Weights = Weights()
    tied: bool = False
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int = 0
    vocabulary: int
    windows: tuple[int, ...] = ()
    latent: int = 0
    state_layers: int = 0
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    stored_dtype: str = "bfloat16"
    quantization: str | None = None
    group_size: int = 0
    max_position_embeddings: int
    stored_bytes: int = 0
    doubts: tuple[str, ...] = ()

    def weights_bytes(self, dtype: str, quantization: str | None = None) -> int:
        """Of the whole model as loaded, once, on one device."""
        rates = weight_rates(dtype, quantization)
        total = self.embedding + self.head + self.other
        for layer in self.layers:
            total = total + layer.divided + layer.copied
        return total.size_bytes(*rates)


def weight_rates(dtype: str, quantization: str | None) -> tuple[float, float]:
    """Bytes of a plain and of a linear parameter after loading; a stored quantization changes neither."""
    plain = float(DTYPE_BYTES[dtype])
    return plain, ONLINE_BYTES.get(quantization or "", plain)
