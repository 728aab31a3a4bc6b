"""Weights that are stored quantized: how many bytes a parameter of a linear layer takes, from quantization_config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from penstock.planning.read.config import ModelConfig

__all__ = ["Stored", "stored_quantization"]

SCALE_BYTES = 2  # of a group: float16
FP8_SCALE_BYTES = 4  # of a block: float32


class Stored(NamedTuple):
    """label: for people. linear_bytes: of a parameter, scales and zero points included. group_size: parameters that
    share a scale and must stay together. certain: whether the scheme is one whose arithmetic is known here."""

    label: str
    linear_bytes: float
    group_size: int = 0
    certain: bool = True


def stored_quantization(config: ModelConfig) -> Stored | None:
    """None: the weights are stored as they are computed with."""
    fields = config.quantization
    if not fields:
        return None
    method = str(fields.get("quant_method", "unknown")).lower()
    match method:
        case "awq" | "gptq" | "gptq_marlin" | "awq_marlin" | "auto-round":
            return _grouped(
                method, _number(fields, 4, "bits", "w_bit"), _number(fields, 128, "group_size", "q_group_size")
            )
        case "fp8" | "fbgemm_fp8":
            return _fp8(method, fields)
        case "bitsandbytes":
            if fields.get("load_in_8bit"):
                return Stored("bitsandbytes, 8 bits", 1.0)
            return Stored("bitsandbytes, 4 bits", 0.516)
        case "compressed-tensors":
            return _compressed(fields)
        case "mxfp4":
            return Stored("mxfp4", 0.5 + 1 / 32, 32)
        case _:
            bits = _number(fields, 8, "bits", "num_bits")
            return Stored(f"{method}, {bits} bits", bits / 8, certain=False)


def _grouped(method: str, bits: int, group_size: int) -> Stored:
    """Integers of `bits`, a scale and a zero point for each group; group size -1: one group for a whole column."""
    if group_size <= 0:
        return Stored(f"{method}, {bits} bits", bits / 8)
    per_group = (SCALE_BYTES + bits / 8) / group_size
    return Stored(f"{method}, {bits} bits", bits / 8 + per_group, group_size)


def _fp8(method: str, fields: Mapping[str, Any]) -> Stored:
    block = fields.get("weight_block_size")
    if isinstance(block, list) and len(block) == 2 and all(isinstance(side, int) and side > 0 for side in block):
        return Stored(
            f"{method}, blocks of {block[0]} x {block[1]}", 1 + FP8_SCALE_BYTES / (block[0] * block[1]), block[0]
        )
    return Stored(method, 1.0)


def _compressed(fields: Mapping[str, Any]) -> Stored:
    groups = fields.get("config_groups")
    weights: Any = None
    if isinstance(groups, Mapping):
        weights = next((g.get("weights") for g in groups.values() if isinstance(g, Mapping)), None)
    if not isinstance(weights, Mapping):
        return Stored("compressed-tensors", 1.0, certain=False)
    bits, size = _number(weights, 8, "num_bits"), weights.get("group_size")
    label = f"compressed-tensors, {bits} bits"
    if isinstance(size, int) and size > 0:
        return Stored(label, bits / 8 + SCALE_BYTES / size, size)
    return Stored(label, bits / 8)


def _number(fields: Mapping[str, Any], default: int, *names: str) -> int:
    for name in names:
        value = fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return default
