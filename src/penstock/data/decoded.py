"""How much memory Arrow data takes once it is decoded: a dictionary, a run or a view names one text many times."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from penstock.data.limits import CHUNK_BYTES

_VALUE_BYTES = 8


def decoded_bytes(array: Any) -> int:
    """Bytes of an array without dictionaries, runs and views; an upper bound where it has runs."""
    import pyarrow.compute as pc

    type_ = array.type
    if isinstance(type_, pa.BaseExtensionType):
        return decoded_bytes(array.storage)
    if not _repeats(type_):
        return int(array.nbytes)
    if pt.is_dictionary(type_):
        named = pc.sum(_lengths(array.dictionary).take(array.indices)).as_py()
        return int(named or 0) + _VALUE_BYTES * len(array)
    if pt.is_run_end_encoded(type_):
        longest = pc.max(_lengths(array.values)).as_py()
        return (int(longest or 0) + _VALUE_BYTES) * len(array)
    if pt.is_string_view(type_) or pt.is_binary_view(type_):
        return sum(_view_lengths(array)) + _VALUE_BYTES * len(array)
    if pt.is_list_view(type_) or pt.is_large_list_view(type_):
        elements = int(pc.sum(pc.list_value_length(array)).as_py() or 0)
        return elements * (1 + decoded_bytes(array.values) // max(len(array.values), 1)) + _VALUE_BYTES * len(array)
    if pt.is_struct(type_):
        return sum(map(decoded_bytes, array.flatten())) + len(array)
    if pt.is_map(type_):
        return decoded_bytes(array.keys) + decoded_bytes(array.items) + _VALUE_BYTES * len(array)
    return decoded_bytes(array.flatten()) + _VALUE_BYTES * len(array)


def fitting_rows(batch: pa.RecordBatch, start: int, rows: int) -> tuple[pa.RecordBatch, int]:
    """(rows of `batch` from `start` on, their bytes once decoded): at most `rows`, and fewer where they are large, yet
    one."""
    limit_bytes = CHUNK_BYTES // 2
    while True:
        found = batch.slice(start, rows)
        size_bytes = sum(map(decoded_bytes, found.columns))
        if size_bytes <= limit_bytes or found.num_rows <= 1:
            return found, size_bytes
        rows = max(1, min(found.num_rows // 2, found.num_rows * limit_bytes // size_bytes))


def longest_named(array: Any) -> int:
    """Bytes of the longest text in any dictionary of an array."""
    import pyarrow.compute as pc

    if pt.is_dictionary(array.type):
        return int(pc.max(_lengths(array.dictionary)).as_py() or 0)
    if pt.is_map(array.type):
        return max(longest_named(array.keys), longest_named(array.items))
    if pt.is_struct(array.type):
        return max(map(longest_named, array.flatten()), default=0)
    return longest_named(array.values) if pt.is_nested(array.type) and hasattr(array, "values") else 0


def _repeats(type_: pa.DataType) -> bool:
    return (
        pt.is_dictionary(type_)
        or pt.is_run_end_encoded(type_)
        or pt.is_string_view(type_)
        or pt.is_binary_view(type_)
        or pt.is_list_view(type_)
        or pt.is_large_list_view(type_)
        or any(_repeats(type_.field(index).type) for index in range(type_.num_fields))
    )


def _view_lengths(array: Any) -> list[int]:
    """Of a text or binary view, whose 16 bytes each begin with the length; Arrow has no function for it."""
    views = array.buffers()[1]
    if views is None:
        return [0] * len(array)
    with memoryview(views) as raw, raw[: len(raw) // 4 * 4].cast("i") as numbers:
        return numbers[4 * array.offset : 4 * (array.offset + len(array)) : 4].tolist()


def _lengths(values: Any) -> Any:
    """The bytes of each value."""
    import pyarrow.compute as pc

    type_ = values.type
    if pt.is_string(type_) or pt.is_large_string(type_) or pt.is_binary(type_) or pt.is_large_binary(type_):
        return pc.binary_length(values).cast(pa.int64())
    if pt.is_string_view(type_) or pt.is_binary_view(type_):
        return pa.array(_view_lengths(values), pa.int64())
    if pt.is_nested(type_) or _repeats(type_):
        return pa.array([decoded_bytes(values.slice(index, 1)) for index in range(len(values))], pa.int64())
    return pa.array([_VALUE_BYTES] * len(values), pa.int64())
