"""Headers of safetensors files: the first 8 bytes say how long the JSON behind them is, and that is all that is read.

Format: a little-endian unsigned 64-bit length N, then N bytes of JSON {name: {dtype, shape, data_offsets}}.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from penstock.errors import PlanError

__all__ = ["DTYPE_BITS", "Tensor", "read_header", "tensors_of"]

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own library
FIX = "it is corrupt or not a safetensors file; download it again"

DTYPE_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "C64": 64,
}  # fmt: skip


class Tensor(NamedTuple):
    """One tensor of a checkpoint: dtype in the words of safetensors."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.elements * DTYPE_BITS[self.dtype] // 8


class Header(NamedTuple):
    """tensors of one file; complete: whether the file has all the data that the header lists."""

    tensors: list[Tensor]
    complete: bool


def read_header(path: Path) -> Header:
    """The header of one file. Raises PlanError for a file that is none."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            if size < LENGTH_BYTES or not 2 <= length <= min(MAX_HEADER_BYTES, size - LENGTH_BYTES):
                message = f"the header claims {length:,} bytes, the file has {size:,}"
                raise PlanError(f"{message}; {FIX}", where=str(path))
            text = file.read(length)
    except OSError as error:
        raise PlanError(f"can't be read: {error.strerror}", where=str(path)) from None
    try:
        fields = json.loads(text)
        tensors, end = tensors_of(fields, str(path))
    except (ValueError, RecursionError):
        raise PlanError(f"the header is not JSON; {FIX}", where=str(path)) from None
    return Header(tensors, size >= LENGTH_BYTES + length + end)


def tensors_of(fields: Any, where: str) -> tuple[list[Tensor], int]:
    """The tensors of a header and the end of their data, in bytes. Raises PlanError for fields that make no sense."""
    if not isinstance(fields, dict):
        raise PlanError(f"the header is not a mapping of tensors; {FIX}", where=where)
    tensors, end = [], 0
    for name, entry in fields.items():
        if name == "__metadata__":
            continue
        tensors.append(_tensor(name, entry, where))
        offsets = entry.get("data_offsets")
        if isinstance(offsets, list) and len(offsets) == 2 and all(isinstance(at, int) for at in offsets):
            end = max(end, offsets[1])
    return tensors, end


def _tensor(name: str, entry: Any, where: str) -> Tensor:
    dtype = entry.get("dtype") if isinstance(entry, Mapping) else None
    shape = entry.get("shape") if isinstance(entry, Mapping) else None
    if not isinstance(dtype, str) or not isinstance(shape, list):
        raise PlanError(f"the header's entry for {name!r} has no dtype and shape; {FIX}", where=where)
    if dtype not in DTYPE_BITS:
        raise PlanError(f"{name!r} has the dtype {dtype!r}, which this version does not know", where=where)
    if not all(isinstance(side, int) and not isinstance(side, bool) and side >= 0 for side in shape):
        raise PlanError(f"{name!r} has the shape {shape}; {FIX}", where=where)
    return Tensor(name, dtype, tuple(shape))
