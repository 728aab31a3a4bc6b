"""How much memory values take, roughly but with everything that they hold; and lists of names that stay short."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from sys import getsizeof
from typing import Any

import pyarrow as pa

from penstock.data.limits import COLUMN_BYTES, ROW_BYTES

_SHOWN_NAMES = 12
_SHOWN_TYPE = 200  # characters
_HOLDERS = (list, tuple, dict)


def memory_of(value: Any) -> int:
    """Bytes of a Python value with all that is inside. What is there twice counts twice."""
    total = getsizeof(value, 64)
    pending = [value] if isinstance(value, _HOLDERS) else []
    while pending:
        holder = pending.pop()
        if isinstance(holder, dict):
            total += sum(map(getsizeof, holder))
            inside: Any = holder.values()
        else:
            inside = holder
        for kind in set(map(type, inside)):
            if issubclass(kind, _HOLDERS):
                pending += [item for item in inside if type(item) is kind]
        total += sum(map(getsizeof, inside))
    return total


def row_overhead(schema: pa.Schema) -> int:
    """Memory of a row beside its values, by its columns. A field of a struct takes room in every row of a table, also
    where the row has no such field."""
    inner = sum(_fields_of(field.type) for field in schema)
    return ROW_BYTES + COLUMN_BYTES * len(schema.names) + 16 * inner


def _fields_of(type_: pa.DataType) -> int:
    inner = sum(1 + _fields_of(type_.field(index).type) for index in range(type_.num_fields))
    return inner if pa.types.is_struct(type_) else max(inner - 1, 0)


def shown_names(names: Iterable[str], count: int | None = None) -> str:
    """The first names, and how many more there are. `count`: of all, where `names` can't tell."""
    names = list(names) if count is None else islice(names, _SHOWN_NAMES)
    first = list(names)[:_SHOWN_NAMES]
    left = (len(names) if isinstance(names, list) else count or 0) - len(first)
    return ", ".join(first) + (f", ... and {left:,} more" if left > 0 else "")


def shown_type(type_: pa.DataType) -> str:
    """The type in words, cut where it has many fields."""
    if _fields_of(type_) > _SHOWN_TYPE:  # not all of it is put into words first
        return f"{type(type_).__name__.removesuffix('Type').lower()} with {_fields_of(type_):,} fields"
    text = str(type_)
    return text if len(text) <= _SHOWN_TYPE else text[:_SHOWN_TYPE] + "..."
