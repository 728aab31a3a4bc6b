"""Tensors of a checkpoint to the parts of a model, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

from penstock.planner.model import Layer, Weights
from penstock.planning.read.headers import Tensor

__all__ = ["Parts", "sort_tensors"]

LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")
# Parts of models that read more than text; they have layers of their own.
OTHER_PARTS = re.compile(r"(?:^|\.)(?:vision|visual|audio|image|multi_modal|mm_|speech)\w*\.")
EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in|tok_embeddings)\.weight$")
HEAD = re.compile(r"^(?:lm_head|output|embed_out|language_model\.lm_head)\.")
# Not divided by tensor parallelism: norms, routers, the down-projections of MLA.
COPIED = re.compile(r"norm|\.router\.|\.gate\.(?:weight|e_score_correction_bias)$|q_a_proj|kv_a_proj")
KV_PROJECTION = re.compile(r"\.(?:k_proj|v_proj|key|value)\.")
# What belongs to quantized weights and stays as it is stored.
QUANTIZATION = re.compile(
    r"\.(?:qweight|qzeros|scales|g_idx|weight_scale\w*|input_scale|weight_zero_point|weight_shape)$"
    r"|absmax|quant_map|quant_state|nested_|_scale_inv$|_scales$|_blocks$"
)
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


class Parts(Struct):
    """What sorting gave. unloaded_bytes: of layers behind the last one (next-token prediction), which engines leave
    out unless they are asked to speculate."""

    layers: tuple[Layer, ...]
    embedding: Weights = Weights()
    head: Weights = Weights()
    other: Weights = Weights()
    has_head: bool = False
    unloaded_bytes: int = 0
    stored_bytes: int = 0
    float_dtype: str | None = None


def sort_tensors(tensors: Iterable[Tensor], layers: int) -> Parts:
    """`layers`: how many decoder layers the configuration has."""
    divided, copied, kv = [Weights()] * layers, [Weights()] * layers, [Weights()] * layers
    parts = Parts(())
    floats: dict[str, int] = {}
    for tensor in tensors:
        parts.stored_bytes += tensor.size_bytes
        if tensor.dtype in FLOATS:
            floats[tensor.dtype] = floats.get(tensor.dtype, 0) + tensor.elements
        found = None if OTHER_PARTS.search(tensor.name) else LAYER.search(tensor.name)
        if found is None:
            _outside_layers(parts, tensor)
            continue
        index = int(found[1])
        if index >= layers:
            parts.unloaded_bytes += tensor.size_bytes
        elif COPIED.search(tensor.name):
            copied[index] += _weights(tensor)
        else:
            divided[index] += _weights(tensor)
            if KV_PROJECTION.search(tensor.name):
                kv[index] += _weights(tensor)
    parts.layers = tuple(Layer(*each) for each in zip(divided, copied, kv, strict=True))
    most = max(floats, key=lambda dtype: floats[dtype], default=None)
    parts.float_dtype = {"F32": "float32", "F64": "float32", "F16": "float16", "BF16": "bfloat16"}.get(most or "")
    return parts


def _outside_layers(parts: Parts, tensor: Tensor) -> None:
    weights = _weights(tensor)
    plain = Weights(plain=weights.linear + weights.plain, packed=weights.packed)
    if OTHER_PARTS.search(tensor.name):
        parts.other += plain
    elif EMBEDDING.search(tensor.name):
        parts.embedding += plain
    elif HEAD.search(tensor.name):
        parts.head += plain
        parts.has_head = True
    else:
        parts.other += plain


def _weights(tensor: Tensor) -> Weights:
    if tensor.dtype not in FLOATS or QUANTIZATION.search(tensor.name):
        return Weights(packed=tensor.size_bytes)
    if len(tensor.shape) >= 2 and not COPIED.search(tensor.name.replace("q_a_proj", "").replace("kv_a_proj", "")):
        return Weights(linear=tensor.elements)
    return Weights(plain=tensor.elements)
