"""Columns of arrays: from buffers to Arrow and back, without a look at single elements.

A column whose type was taken from arrays is marked in its field's metadata, so that rows that are read back (by the
next phase of a run) hold arrays again, and not lists of numbers. Other list columns hold lists, as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from penstock.protocol.arrays import DTYPES, Array

__all__ = ["array_column", "fits", "holds_arrays", "is_list_type", "marked", "type_of", "values_of"]

_MARK = b"penstock.array"
_ARROW = {name: pa.type_for_alias(name.replace("float16", "halffloat")) for name in DTYPES}
_NAMES = {type_: name for name, type_ in _ARROW.items()}


def is_list_type(type_: pa.DataType) -> bool:
    return (
        pt.is_list(type_)
        or pt.is_large_list(type_)
        or pt.is_fixed_size_list(type_)
        or pt.is_list_view(type_)
        or pt.is_large_list_view(type_)
    )


def type_of(dtype: str, dimensions: int) -> pa.DataType:
    """The type of a column of such arrays: lists of any length, since the first rows may not show all lengths."""
    type_ = _ARROW[dtype]
    for _ in range(dimensions):
        type_ = pa.list_(type_)
    return type_


def marked(field: pa.Field) -> pa.Field:
    """The field of a column of arrays."""
    return field.with_metadata({**(field.metadata or {}), _MARK: b"1"})


def holds_arrays(field: pa.Field) -> bool:
    return field.metadata is not None and _MARK in field.metadata


def fits(array: Array, type_: pa.DataType) -> bool:
    """Whether a column of `type_` holds the array: lists as deep as it has dimensions, of numbers of its kind."""
    shape = array.shape
    for at in range(len(shape)):
        if not is_list_type(type_):
            return False
        if pt.is_fixed_size_list(type_) and any(size != type_.list_size for size in shape[at : at + 1]):
            return False
        type_ = type_.value_type
    if array.dtype.startswith("float"):
        return bool(pt.is_floating(type_))
    return bool(pt.is_integer(type_) or pt.is_floating(type_))


def array_column(values: Sequence[Array | None], type_: pa.DataType) -> pa.Array | None:
    """The column of these arrays, each of which `fits`; None where they can't be laid side by side as buffers (of
    several element types), or where a number is too large for the column."""
    present = [value for value in values if value is not None]
    if len({(value.dtype, len(value.shape)) for value in present}) != 1:
        return None
    head = present[0]
    nulls = [value is None for value in values]
    # A null in a column of one width still takes the place of its elements.
    blank = head.shape if pt.is_fixed_size_list(type_) else ()
    shapes = [blank if value is None else value.shape for value in values]
    hole = bytes(len(head.data)) if blank else b""
    data = b"".join([hole if value is None else value.data for value in values])
    flat = pa.Array.from_buffers(_ARROW[head.dtype], sum(map(_count, shapes)), [None, pa.py_buffer(data)])
    try:
        return _nested(shapes, flat, type_, nulls)
    except (pa.ArrowException, TypeError, NotImplementedError):
        return None


def _count(shape: tuple[int, ...]) -> int:
    return prod(shape) if shape else 0


def _nested(shapes: Sequence[tuple[int, ...]], flat: pa.Array, type_: pa.DataType, nulls: Sequence[bool]) -> pa.Array:
    """`flat` as lists of these shapes; a shape () is a null without elements."""
    if not is_list_type(type_):
        return flat if flat.type == type_ else flat.cast(type_)
    lengths = [shape[0] if shape else 0 for shape in shapes]
    inner = type_.value_type
    if is_list_type(inner):
        below = [shape[1:] for shape, length in zip(shapes, lengths, strict=True) for _ in range(length)]
        child = _nested(below, flat, inner, ())
    else:
        child = flat if flat.type == inner else flat.cast(inner)
    mask = pa.array(nulls, pa.bool_()) if any(nulls) else None
    if pt.is_fixed_size_list(type_):
        return pa.FixedSizeListArray.from_arrays(child, type=type_, mask=mask)
    offsets = [0, *accumulate(lengths)]
    if pt.is_large_list(type_):
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), child, type=type_, mask=mask)
    found = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), child, type=_as_list(type_), mask=mask)
    return found if found.type == type_ else found.cast(type_)


def _as_list(type_: pa.DataType) -> pa.DataType:
    return type_ if pt.is_list(type_) else pa.list_(type_.value_field)


def values_of(column: pa.Array) -> list[Any] | None:
    """The rows of a column of arrays as arrays; None where that is no such column."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    dimensions, inner = 0, column.type
    while is_list_type(inner):
        dimensions, inner = dimensions + 1, inner.value_type
    dtype = _NAMES.get(inner)
    if dtype is None or not dimensions:
        return None
    return [None if row is None else _array_of(row, dtype, dimensions) for row in _rows(column)]


def _rows(column: pa.Array) -> list[pa.Array | None]:
    """The elements of each list; None for a null."""
    return [scalar.values if scalar.is_valid else None for scalar in column]


def _array_of(elements: pa.Array, dtype: str, dimensions: int) -> Array:
    shape = [len(elements)]
    for _ in range(dimensions - 1):
        width = len(elements[0]) if len(elements) else 0
        elements = elements.flatten()
        shape.append(width)
    size = elements.type.bit_width // 8
    begin = elements.offset * size
    buffer = elements.buffers()[1]
    data = bytes(memoryview(buffer)[begin : begin + len(elements) * size]) if buffer is not None else b""
    return Array(dtype, tuple(shape), data)
