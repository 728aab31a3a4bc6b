"""Checks values against column types: batches cheaply, single values with a reason.

Arrow alone is too lenient for a promise of exact values: it drops the unknown fields of a struct, takes bytes for a
string and 1.0 for an integer. So the Python types are compared first; Arrow judges bounds and the rarer types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from penstock.data.array_columns import array_column, fits, is_list_type
from penstock.data.sizes import row_overhead, shown_names, shown_type
from penstock.protocol.arrays import Array, plain

Fault = tuple[str, str]  # (code of errors.DEAD_CODES, message)
_Check = Callable[[Any], Fault | None]

_JSON_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "list", dict: "object"}
_SHOWN_ITEMS = 60
_MAX_EXACT_INT = 1 << 53  # float64 holds every integer up to here


def type_name(value: Any) -> str:
    return "null" if value is None else _JSON_NAMES.get(type(value), type(value).__name__)


def _mismatch(type_: pa.DataType, value: Any, place: str = "") -> Fault:
    return "type_mismatch", f"{place}expected {shown_type(type_)}, got {type_name(value)} {_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, (str, bytes, list, tuple)):
        value = value[:_SHOWN_ITEMS]  # of a list its beginning: the text of all of it may be large
    try:
        text = repr(value)
    except Exception:  # nested too deep, an integer with too many digits, or an object with a method of its own
        return "..."
    return text if len(text) <= 60 else text[:57] + "..."


def allowed_types(type_: pa.DataType) -> frozenset[type] | None:
    """The exact Python types of a plain column's values, None included; None for types that Arrow judges."""
    none = type(None)
    if pt.is_string(type_) or pt.is_large_string(type_) or pt.is_string_view(type_):
        return frozenset({str, none})
    if pt.is_boolean(type_):
        return frozenset({bool, none})
    if pt.is_integer(type_):
        return frozenset({int, none})
    if pt.is_floating(type_):
        return frozenset({float, int, none})
    if pt.is_binary(type_) or pt.is_large_binary(type_) or pt.is_fixed_size_binary(type_) or pt.is_binary_view(type_):
        return frozenset({bytes, none})
    if pt.is_null(type_):
        return frozenset({none})
    return None


def _integer_bounds(type_: pa.DataType) -> tuple[int, int] | None:
    """The smallest and largest Python integer that a column of numbers holds exactly."""
    if pt.is_floating(type_):
        return -_MAX_EXACT_INT, _MAX_EXACT_INT
    if not pt.is_integer(type_):
        return None
    if pt.is_signed_integer(type_):
        return -(1 << (type_.bit_width - 1)), (1 << (type_.bit_width - 1)) - 1
    return 0, (1 << type_.bit_width) - 1


def value_check(type_: pa.DataType) -> _Check:
    """A function from a value to what is wrong with it, or None."""
    allowed = allowed_types(type_)
    if allowed is not None:
        return _plain_check(type_, allowed)
    if is_list_type(type_):
        return _list_check(type_)
    if pt.is_struct(type_):
        return _struct_check(type_)
    if pt.is_map(type_):
        return _map_check(type_)
    return lambda value: None if value is None else _arrow_fault(type_, value)


def _plain_check(type_: pa.DataType, allowed: frozenset[type]) -> _Check:
    classes = tuple(allowed - {type(None)})
    judged_by_arrow = pt.is_integer(type_) or pt.is_fixed_size_binary(type_) or allowed == frozenset({str, type(None)})

    def check(value: Any) -> Fault | None:
        kind = type(value)
        if kind not in allowed and (kind is bool or not isinstance(value, classes)):
            return _mismatch(type_, value)
        if value is None:
            return None
        if judged_by_arrow:
            return _arrow_fault(type_, value)
        if kind is int and pt.is_floating(type_) and abs(value) > _MAX_EXACT_INT:
            return "bad_number", f"expected {type_}, which can't hold the integer {_shown(value)} exactly"
        return None

    return check


def _arrow_fault(type_: pa.DataType, value: Any) -> Fault | None:
    try:
        pa.array([plain(value)], type_)
    except UnicodeEncodeError as error:
        return "bad_encoding", f"the text is not valid Unicode: {error.reason} at character {error.start}"
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        if pt.is_integer(type_) and isinstance(value, int):
            return "bad_number", f"expected {type_}, which can't hold {_shown(value)}"
        return _mismatch(type_, value)
    return None


def _list_check(type_: pa.DataType) -> _Check:
    element_type = type_.value_type
    check_element = value_check(element_type)
    quick = ColumnCheck("", element_type)

    def check(value: Any) -> Fault | None:
        if value is None:
            return None
        if type(value) is Array:
            return None if fits(value, type_) else _mismatch(type_, value)
        if not isinstance(value, (list, tuple)):
            return _mismatch(type_, value)
        if pt.is_fixed_size_list(type_) and len(value) != type_.list_size:
            return "type_mismatch", f"expected {type_}, got {len(value)} elements"
        if quick.passes(value):
            return None
        for index, element in enumerate(value):
            fault = check_element(element)
            if fault is not None:
                return fault[0], f"[{index}] {fault[1]}"
        return None

    return check


def _struct_check(type_: pa.DataType) -> _Check:
    checks = {field.name: value_check(field.type) for field in type_}

    def check(value: Any) -> Fault | None:
        if value is None:
            return None
        if not isinstance(value, dict):
            return _mismatch(type_, value)
        for name, inner in value.items():
            check_field = checks.get(name)
            if check_field is None:
                return "type_mismatch", f"unknown field {name!r}; expected {shown_type(type_)}"
            fault = check_field(inner)
            if fault is not None:
                return fault[0], f".{name} {fault[1]}"
        return None

    return check


def _map_check(type_: pa.DataType) -> _Check:
    """Objects, and lists of (key, value). Checked before Arrow sees them: a null among the entries makes it abort."""
    check_key, check_item = value_check(type_.key_type), value_check(type_.item_type)

    def check(value: Any) -> Fault | None:
        if value is None:
            return None
        if not isinstance(value, (dict, list, tuple)):
            return _mismatch(type_, value)
        for entry in value.items() if isinstance(value, dict) else value:
            if not isinstance(entry, (list, tuple)) or len(entry) != 2 or entry[0] is None:
                return _mismatch(type_, value)
            fault = check_key(entry[0]) or check_item(entry[1])
            if fault is not None:
                return fault[0], f"[{_shown(entry[0])}] {fault[1]}"
        return _arrow_fault(type_, value)

    return check


class ColumnCheck:
    """The check of one column: `passes` and `array` for a batch, `fault` for the reason of one value."""

    def __init__(self, name: str, type_: pa.DataType) -> None:
        self.name = name
        self.type = type_
        self._allowed = allowed_types(type_)
        self._bounds = _integer_bounds(type_)
        self._check: _Check | None = None
        self._is_list = is_list_type(type_)
        self._nested = bool(pt.is_nested(type_))  # it may hold arrays

    def passes(self, values: Sequence[Any]) -> bool:
        """Whether all values fit. Texts are taken for valid Unicode, as a decoder makes them."""
        if not self._has_types(values):
            return False
        if self._bounds is None:
            return True
        # Not left to Arrow, whose first array from a list would import pandas where that is installed.
        integers = [value for value in values if type(value) is int]
        low, high = self._bounds
        return not integers or (low <= min(integers) and max(integers) <= high)

    def array(self, values: Sequence[Any]) -> pa.Array | None:
        """The values as an Arrow array, or None where one does not fit."""
        return self._to_arrow(values) if self._has_types(values) else None

    def fault(self, value: Any) -> Fault | None:
        """Why the value does not fit: (code, message); None where it does."""
        found = self._value_check(value)
        if found is None and value is not None:
            found = _arrow_fault(self.type, value)
        return None if found is None else (found[0], found[1].lstrip())

    def _has_types(self, values: Sequence[Any]) -> bool:
        if self._allowed is not None and self._allowed.issuperset(map(type, values)):
            return True
        check = self._value_check
        return all(check(value) is None for value in values)

    def _to_arrow(self, values: Sequence[Any]) -> pa.Array | None:
        if self._is_list and Array in (kinds := set(map(type, values))) and kinds <= {Array, type(None)}:
            found = array_column(values, self.type)
            if found is not None:
                return found
        try:
            return pa.array(values, self.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return self._without_arrays(values) if self._nested else None

    def _without_arrays(self, values: Sequence[Any]) -> pa.Array | None:
        """Arrays among lists, or within structs, as lists."""
        lists = plain(values)
        if lists is values:
            return None
        try:
            return pa.array(lists, self.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return None

    def _value_check(self, value: Any) -> Fault | None:
        if self._check is None:
            self._check = value_check(self.type)
        return self._check(value)


class RowChecker:
    """Checks batches of rows against a fixed schema, and fills columns that a row lacks with None."""

    def __init__(self, schema: pa.Schema) -> None:
        self._names: list[str] = schema.names
        self._columns = [ColumnCheck(field.name, field.type) for field in schema]
        self._empty: dict[str, Any] = dict.fromkeys(self._names)
        self.row_overhead = row_overhead(schema)

    def faults(self, rows: Sequence[dict[str, Any]]) -> dict[int, Fault]:
        """Index of each row that does not fit -> its first fault. Rows are completed in place."""
        found = self._fit_keys(rows)
        for column in self._columns:
            values = list(map(itemgetter(column.name), rows))
            if column.passes(values):
                continue
            for index, value in enumerate(values):
                fault = column.fault(value)
                if fault is not None:
                    found.setdefault(index, (fault[0], f"column {column.name!r}: {fault[1]}"))
        return found

    def _fit_keys(self, rows: Sequence[dict[str, Any]]) -> dict[int, Fault]:
        known = self._empty.keys()
        found: dict[int, Fault] = {}
        for index, row in enumerate(rows):
            if row.keys() == known:
                continue
            unknown = next((name for name in row if name not in self._empty), None)
            if unknown is not None:
                columns = shown_names(self._names)
                found[index] = (
                    "type_mismatch",
                    f"column {unknown!r}: not in the schema fixed at the start ({columns}), "
                    f"got {type_name(row[unknown])} {_shown(row[unknown])}",
                )
            for name in self._names:
                row.setdefault(name, None)
        return found
