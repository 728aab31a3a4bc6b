"""Arrays as buffers: element type, shape, bytes. Vectors never become lists of Python floats on their way.

An `Array` is what an engine or a function answers with, what a row holds, what Arrow columns are built from without a
look at single elements, and what a later function gets back as a numpy array, or as a memoryview where numpy is not
installed. The coordinator needs no numpy. It reads like a list of numbers (length, index, iteration, equality), so
that templates and expressions over a column work as they do for lists.

On the wire it is a msgpack extension (code EXTENSION): a byte for the element type, one for the number of dimensions,
each dimension as 8 bytes big-endian, then the elements in C order, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from msgspec.msgpack import Ext

__all__ = ["DTYPES", "EXTENSION", "Array", "as_native", "pack_array", "plain", "unpack_array"]

EXTENSION = 9
DTYPES = {
    "float16": "e",
    "float32": "f",
    "float64": "d",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
}
"""Element types by numpy's names, with their format characters."""
_NAMES = list(DTYPES)
_BY_FORMAT = {format_: name for name, format_ in DTYPES.items()}
_MAX_DIMENSIONS = 8
_MAX_PLACES_WITHOUT_ELEMENTS = 1 << 20  # no bytes bound the shape of such an array, and its lists are made of it


class Array(Sequence[Any]):
    """dtype: one of DTYPES; shape: at least one dimension; data: bytes, C order, little-endian. Raises ValueError where
    these do not fit together. Never changed once made; `data` may be a view of a larger buffer, which then stays."""

    __slots__ = ("data", "dtype", "shape")

    def __init__(self, dtype: str, shape: tuple[int, ...], data: bytes | memoryview) -> None:
        size = struct.calcsize(f"<{DTYPES[dtype]}") if dtype in DTYPES else 0
        if not size or not 1 <= len(shape) <= _MAX_DIMENSIONS or min(shape) < 0 or len(data) != size * prod(shape):
            raise ValueError(f"{len(data)} bytes are no array of {dtype} with the shape {shape}")
        if not data and prod(extent or 1 for extent in shape) > _MAX_PLACES_WITHOUT_ELEMENTS:
            raise ValueError(
                f"an array without elements has the shape {shape}; its other dimensions may give "
                f"{_MAX_PLACES_WITHOUT_ELEMENTS:,} places at most"
            )
        self.dtype, self.shape, self.data = dtype, shape, data

    @classmethod
    def of(cls, value: Any) -> Array | None:
        """A copy of a numpy array, or of a typed memoryview; None for other elements, or dimensions than 1 to 8."""
        if not 1 <= value.ndim <= _MAX_DIMENSIONS:
            return None
        if isinstance(value, memoryview):
            name = _BY_FORMAT.get(value.format)
            return cls(name, value.shape, value.tobytes()) if name is not None and value.shape else None
        if value.dtype.name not in DTYPES:
            return None
        little = value.dtype.newbyteorder("<")
        return cls(value.dtype.name, tuple(map(int, value.shape)), value.astype(little, copy=False).tobytes())

    def rows(self) -> list[Array]:
        """The arrays along the first dimension, as views: how an engine makes answers of one matrix."""
        if len(self.shape) < 2:
            raise ValueError(f"an array of the shape {self.shape} has no rows")
        view, inner = memoryview(self.data), self.shape[1:]
        size = len(view) // self.shape[0] if self.shape[0] else 0
        return [Array(self.dtype, inner, view[at * size : (at + 1) * size]) for at in range(self.shape[0])]

    def tolist(self) -> list[Any]:
        """The elements as Python numbers, in nested lists."""
        flat = list(struct.unpack(f"<{prod(self.shape)}{DTYPES[self.dtype]}", self.data))
        for size in reversed(self.shape[1:]):
            flat = [flat[at : at + size] for at in range(0, len(flat), size)] if size else []
        if not flat and len(self.shape) > 1 and self.shape[0]:
            return [Array(self.dtype, self.shape[1:], b"").tolist() for _ in range(self.shape[0])]
        return flat

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        return (self.tolist() if len(self.shape) == 1 or isinstance(index, slice) else self.rows())[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist() if len(self.shape) == 1 else self.rows())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Array):
            return (self.dtype, self.shape, self.data) == (other.dtype, other.shape, other.data)
        return self.tolist() == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __sizeof__(self) -> int:
        return 120 + len(self.data)  # the three slots, the shape, and the head of `data`, beside the elements

    def __str__(self) -> str:
        return str(self.tolist())

    def __repr__(self) -> str:
        return f"Array({self.dtype}, {self.shape})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return Array, (self.dtype, self.shape, bytes(self.data))


def pack_array(array: Array) -> Ext:
    head = struct.pack(f">BB{len(array.shape)}Q", _NAMES.index(array.dtype), len(array.shape), *array.shape)
    return Ext(EXTENSION, head + array.data)


def unpack_array(data: memoryview) -> Array:
    """Raises ValueError for bytes that are no array."""
    try:
        dtype, dimensions = _NAMES[data[0]], data[1]
        shape = struct.unpack_from(f">{dimensions}Q", data, 2)
    except (IndexError, struct.error) as error:
        raise ValueError(f"{len(data)} bytes are no array: {error}") from None
    return Array(dtype, shape, bytes(data[2 + 8 * dimensions :]))


def as_native(array: Array) -> Any:
    """A numpy array that can be written to, where numpy is installed; else a memoryview of that kind; else (float16, or
    no elements, which no memoryview has) the Array itself."""
    try:
        import numpy
    except Exception:  # not installed, or not for this interpreter
        if array.dtype == "float16" or not array.data:
            return array
        return memoryview(bytearray(array.data)).cast(DTYPES[array.dtype], array.shape)  # type: ignore[call-overload]
    return numpy.frombuffer(bytearray(array.data), dtype=f"<{DTYPES[array.dtype]}").reshape(array.shape)


def plain(value: Any) -> Any:
    """`value` with every array in it as nested lists; the very same object where there is none."""
    if isinstance(value, Array):
        return value.tolist()
    if isinstance(value, dict):
        changed = {key: new for key, item in value.items() if (new := plain(item)) is not item}
        return {**value, **changed} if changed else value
    if isinstance(value, (list, tuple)):
        items = [plain(item) for item in value]
        return items if any(new is not item for new, item in zip(items, value, strict=True)) else value
    return value
