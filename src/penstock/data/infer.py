"""The schema of rows that carry no types: JSON lines, and rows given in Python.

Rules, for each column over the sample (the first thousand rows):

- the type is the kind that most values have (the first seen, when equal); values of other kinds are later
  `type_mismatch`; null counts for none
- whole numbers and fractions together are float64; whole numbers alone int64
- a column, list element or field with nothing but nulls is a string
- lists and objects are lists and structs of what is inside, by the same rules
- an object that is empty in every row is map<string, string>, since Parquet has no struct without fields
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from penstock.data.array_columns import marked, type_of
from penstock.data.limits import MAX_COLUMNS, MAX_KEYS, MAX_PLACES
from penstock.data.sizes import shown_names
from penstock.errors import InputError
from penstock.protocol.arrays import Array

_KINDS: dict[type, str] = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "string",
    list: "list",
    tuple: "list",
    dict: "object",
}
_SAMPLED_VALUES = 1000  # of other Python types (dates, bytes, decimals), kept to ask Arrow for their type
_SAMPLED_ELEMENTS = 100_000  # elements of lists looked at in one column; an embedding needs no more


class _TooManyKeys(Exception):
    """An object, or all of them together, has more keys than a schema may have fields. `path`: where it is."""

    def __init__(self, path: list[str], keys: list[str], limit: int) -> None:
        super().__init__()
        self.path, self.keys, self.limit = path, keys, limit


class _Places:
    """How many places one schema has so far."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class _ArrayKind(NamedTuple):
    dtype: str
    dimensions: int


class _Seen:
    """What was seen at one place of the rows."""

    __slots__ = ("counts", "elements", "fields", "fraction", "looked_at", "others", "places")

    def __init__(self, places: _Places) -> None:
        self.places = places
        places.count += 1
        self.counts: dict[str | type | _ArrayKind, int] = {}
        self.fraction = False
        self.elements: _Seen | None = None
        self.fields: dict[str, _Seen] = {}
        self.others: dict[type, list[Any]] = {}
        self.looked_at = 0

    def add(self, value: Any) -> None:
        if value is None:
            return
        kind: str | type | _ArrayKind = _KINDS.get(type(value), type(value))
        if kind is Array:
            kind = _ArrayKind(value.dtype, len(value.shape))
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind == "number":
            self.fraction = self.fraction or type(value) is float
        elif kind == "object":
            self._add_fields(value)
        elif kind == "list":
            self._add_elements(value)
        elif isinstance(kind, type) and len(self.others.setdefault(kind, [])) < _SAMPLED_VALUES:
            self.others[kind].append(value)

    def _add_fields(self, value: dict[str, Any]) -> None:
        fields = self.fields
        for name, inner in value.items():
            seen = fields.get(name)
            if seen is None:
                if len(fields) >= MAX_KEYS or self.places.count >= MAX_PLACES:
                    raise _TooManyKeys([], [*fields], MAX_KEYS if len(fields) >= MAX_KEYS else MAX_PLACES)
                seen = fields[name] = _Seen(self.places)
            try:
                seen.add(inner)
            except _TooManyKeys as error:
                error.path.insert(0, f"[{json.dumps(name)}]")
                raise

    def _add_elements(self, values: Iterable[Any]) -> None:
        elements = self.elements = self.elements or _Seen(self.places)
        try:
            for value in values:
                if self.looked_at >= _SAMPLED_ELEMENTS:
                    return
                self.looked_at += 1
                elements.add(value)
        except _TooManyKeys as error:
            error.path.insert(0, "[]")
            raise

    def type(self) -> pa.DataType:
        if not self.counts:
            return pa.string()
        kind = max(self.counts, key=self.counts.__getitem__)
        if isinstance(kind, _ArrayKind):
            return type_of(*kind)
        if kind == "number":
            return pa.float64() if self.fraction else pa.int64()
        if kind == "list":
            return pa.list_(self.elements.type() if self.elements else pa.string())
        if kind == "object":
            return self._object_type()
        if isinstance(kind, type):
            return _other_type(kind, self.others[kind])
        return pa.bool_() if kind == "bool" else pa.string()

    def _object_type(self) -> pa.DataType:
        if not self.fields:
            return pa.map_(pa.string(), pa.string())
        return pa.struct([pa.field(name, seen.type()) for name, seen in self.fields.items()])


def _other_type(kind: type, values: list[Any]) -> pa.DataType:
    try:
        return pa.infer_type(values)
    except (pa.ArrowException, TypeError, ValueError):
        raise InputError(
            f"values of type {kind.__name__} can't be stored in a column; "
            "convert them to strings, numbers, lists or dicts"
        ) from None


def infer_field(name: str, values: Iterable[Any]) -> pa.Field:
    """One column with these values, marked where it holds arrays. Raises InputError where no column can hold them."""
    seen = _Seen(_Places())
    try:
        for value in values:
            seen.add(value)
    except _TooManyKeys as error:
        raise InputError(f"{_describe(error)}, return a list of {{key, value}} objects instead") from None
    field = pa.field(name, seen.type())
    return marked(field) if any(isinstance(kind, _ArrayKind) for kind in seen.counts) else field


def infer_type(values: Iterable[Any]) -> pa.DataType:
    """The type of one column with these values. Raises InputError where no column can hold them."""
    return infer_field("", values).type


def is_plain(value: Any) -> bool:
    """Whether a value is of the kinds that JSON has."""
    return value is None or type(value) in _KINDS or type(value) is Array


def infer_schema(rows: Iterable[dict[str, Any]]) -> pa.Schema:
    """The schema of these rows; columns in the order in which they first appear. Raises InputError."""
    columns: dict[str, _Seen] = {}
    places = _Places()
    for row in rows:
        for name, value in row.items():
            seen = columns.get(name)
            if seen is None:
                refuse_columns(columns, len(columns) + 1, "different keys at the top of its rows")
                seen = columns[name] = _Seen(places)
            try:
                seen.add(value)
            except _TooManyKeys as error:
                raise InputError(_converted(name, error)) from None
    return pa.schema([_field(name, seen) for name, seen in columns.items()])


def refuse_columns(names: Iterable[str], count: int, what: str = "columns") -> None:
    """Raises InputError where there are more columns than a run can have."""
    if count > MAX_COLUMNS:
        raise InputError(
            f"has more than {MAX_COLUMNS:,} {what} ({shown_names(names, count)}), the maximum of a run. "
            "If the names are ids, write one row for each, or one column with a list of key-value pairs "
            "(for JSON: jq -c '{entries: to_entries}' FILE > NEW.jsonl)"
        )


def _describe(error: _TooManyKeys) -> str:
    place = "".join(error.path).replace('["', ".").replace('"]', "")
    where = f" at {place}" if place else ""
    return (
        f"its objects{where} have more than {error.limit:,} distinct keys ({shown_names(error.keys)}), and each would "
        "be a field of every row. If the keys are ids"
    )


def _converted(column: str, error: _TooManyKeys) -> str:
    path = f".[{json.dumps(column)}]" + "".join(error.path)
    shell = "'" + f"{path} |= to_entries".replace("'", "'\\''") + "'"
    return (
        f"column {column!r}: {_describe(error)}, convert them to a list of key-value pairs "
        f"(jq -c {shell} FILE > NEW.jsonl), or a string (|= tojson)"
    )


def _field(name: str, seen: _Seen) -> pa.Field:
    try:
        return pa.field(name, seen.type())
    except InputError as error:
        raise InputError(f"column {name!r}: {error.message}") from None
