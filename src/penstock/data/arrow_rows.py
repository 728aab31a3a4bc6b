"""Arrow data as rows, exactly: plain storage types, and Python values that write back to the same Arrow values.

Extension types are never loaded: a column comes as its storage type. Dictionary-encoded columns come decoded. Python
has no time finer than a microsecond: a column of nanosecond times comes as datetime (time, timedelta) where every
value of the batch fits, and as integers in the column's unit where one does not. Both write back exactly.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from penstock.data.array_columns import holds_arrays, values_of
from penstock.data.base import Row
from penstock.data.checks import Fault
from penstock.data.limits import COLUMN_BYTES, ROW_BYTES
from penstock.errors import InputError

UNREADABLE = object()


def storage_type(type_: pa.DataType, column: str) -> pa.DataType:
    """`type_` without extension types, dictionaries and run-length encodings, at any depth."""
    if isinstance(type_, pa.BaseExtensionType):
        return storage_type(type_.storage_type, column)
    if pt.is_dictionary(type_) or pt.is_run_end_encoded(type_):
        return storage_type(type_.value_type, column)
    if pt.is_union(type_) or pt.is_interval(type_):
        raise InputError(f"column {column!r} has the type {type_}, which can't be read; cast it to another type")
    return _map_children(type_, lambda inner: storage_type(inner, column))


def _map_children(type_: pa.DataType, change: Any) -> pa.DataType:
    """The same nested type with `change` applied to the types inside; plain types as they are."""
    if pt.is_struct(type_):
        return pa.struct([pa.field(field.name, change(field.type), field.nullable) for field in type_])
    if pt.is_map(type_):
        return pa.map_(
            _changed(type_.key_field, change), _changed(type_.item_field, change), keys_sorted=type_.keys_sorted
        )
    if pt.is_fixed_size_list(type_):
        return pa.list_(_changed(type_.value_field, change), type_.list_size)
    for is_kind, make in _LIST_KINDS:
        if is_kind(type_):
            return make(_changed(type_.value_field, change))
    return type_


_LIST_KINDS = (
    (pt.is_list, pa.list_),
    (pt.is_large_list, pa.large_list),
    (pt.is_list_view, pa.list_view),
    (pt.is_large_list_view, pa.large_list_view),
)


def _changed(field: pa.Field, change: Any) -> pa.Field:
    return pa.field(field.name, change(field.type), field.nullable)


def storage_schema(schema: pa.Schema) -> pa.Schema:
    """The columns of a file as rows carry them; names must differ. Raises InputError."""
    if len(set(schema.names)) != len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise InputError(f"two columns are named {twice!r}; rename one")
    return pa.schema([pa.field(field.name, storage_type(field.type, field.name)) for field in schema])


def _has_nanoseconds(type_: pa.DataType) -> bool:
    if pt.is_timestamp(type_) or pt.is_time64(type_) or pt.is_duration(type_):
        return type_.unit == "ns"
    return any(_has_nanoseconds(type_.field(index).type) for index in range(type_.num_fields))


def _with_unit(type_: pa.DataType, unit: str | None) -> pa.DataType:
    """`type_` with its nanosecond times in `unit`, or as int64 where that is None."""
    if pt.is_timestamp(type_) and type_.unit == "ns":
        return pa.timestamp(unit, type_.tz) if unit else pa.int64()
    if pt.is_time64(type_) and type_.unit == "ns":
        return pa.time64(unit) if unit else pa.int64()
    if pt.is_duration(type_) and type_.unit == "ns":
        return pa.duration(unit) if unit else pa.int64()
    return _map_children(type_, lambda inner: _with_unit(inner, unit))


def _as_integers(type_: pa.DataType) -> pa.DataType:
    """`type_` with every time and date as the integer that Arrow stores."""
    if pt.is_date32(type_) or pt.is_time32(type_):
        return pa.int32()
    if pt.is_temporal(type_):
        return pa.int64()
    return _map_children(type_, _as_integers)


def column_values(array: pa.Array, *, maps_as_objects: bool = False) -> list[Any]:
    """The values of one column; UNREADABLE where a text is not UTF-8. Maps are lists of pairs, or dicts."""
    if _has_nanoseconds(array.type):
        try:
            array = array.cast(_with_unit(array.type, "us"))
        except (pa.ArrowException, ValueError):
            array = array.cast(_with_unit(array.type, None))
    try:
        if maps_as_objects:
            return array.to_pylist(maps_as_pydicts="strict")
    except KeyError:  # a map with one key twice stays a list of pairs
        pass
    try:
        return array.to_pylist()
    except (ValueError, OverflowError):
        return [_value(array[index]) for index in range(len(array))]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return UNREADABLE
    except (ValueError, OverflowError):  # a date beyond the year 9999
        return scalar.cast(_as_integers(scalar.type)).as_py()


def _any_unreadable(values: list[Any]) -> bool:
    return any(value is UNREADABLE for value in values)


def _decoded(array: Any, type_: pa.DataType) -> list[Any]:
    """The values of a column as `type_` has them. A text that a dictionary names often is there once."""
    if not pt.is_dictionary(array.type):
        return column_values(array if array.type == type_ else array.cast(type_))
    named = array.dictionary
    if len(named) > len(array):
        return column_values(array.cast(type_))
    values = column_values(named if named.type == type_ else named.cast(type_))
    return [None if index is None else values[index] for index in array.indices.to_pylist()]


def batch_rows(
    batch: pa.RecordBatch, schema: pa.Schema, size_bytes: int | None = None
) -> tuple[list[Row], list[int], dict[int, Fault]]:
    """(rows, rough size in bytes of each, index -> fault) of a batch; columns that it lacks are None. size_bytes: of
    the batch once decoded, where that is known."""
    present = set(batch.schema.names)
    columns: list[list[Any]] = []
    faults: dict[int, Fault] = {}
    for field in schema:
        if field.name not in present:
            columns.append([None] * batch.num_rows)
            continue
        array = batch.column(field.name)
        values = values_of(array) if holds_arrays(field) else None
        if values is None:
            values = _decoded(array, field.type)
        for index, value in enumerate(values if _any_unreadable(values) else ()):
            if value is UNREADABLE:
                faults[index] = ("bad_encoding", f"column {field.name!r}: text that is not UTF-8")
        columns.append(values)
    names = schema.names
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    held_bytes = batch.nbytes if size_bytes is None else size_bytes
    mean_bytes = 2 * held_bytes // max(batch.num_rows, 1) + ROW_BYTES + COLUMN_BYTES * len(names)
    return rows, [mean_bytes] * len(rows), faults
