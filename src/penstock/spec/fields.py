"""The types of specification fields. Each refuses in one sentence: what was expected, and what stood there.

YAML and Python give the same values here, so nothing is converted on the quiet: "2" is no number and 1 is no bool.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import PlainValidator

from penstock.spec.frozen import frozen
from penstock.spec.problems import shown, suggestion

Check = Callable[[Any], Any]


MOST_WHOLE = (1 << 63) - 1  # what goes over the wire, and what engines hold in their own integers


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -MOST_WHOLE <= value <= MOST_WHOLE


def is_number(value: object) -> bool:
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def whole(low: int, *, auto: bool = False, none: bool = False) -> PlainValidator:
    """A whole number of at least `low`; with `auto` the word auto as well; with `none` null as well."""

    def check(value: Any) -> Any:
        if (auto and value == "auto") or (none and value is None):
            return value
        if is_whole(value) and value >= low:
            return value
        expected = f"a whole number of at least {low}" + (" or 'auto'" if auto else "")
        raise ValueError(f"expected {expected}, got {shown(value)}")

    return PlainValidator(check)


def seconds(*, none: bool = False) -> PlainValidator:
    def check(value: Any) -> Any:
        if none and value is None:
            return None
        if is_number(value) and value > 0:
            return float(value)
        raise ValueError(f"expected seconds above 0, got {shown(value)}")

    return PlainValidator(check)


def _share(value: Any) -> float:
    if is_number(value) and value > 0:
        return float(value)
    raise ValueError(f"expected a number above 0, got {shown(value)}")


def text(*, none: bool = False) -> PlainValidator:
    def check(value: Any) -> Any:
        if none and value is None:
            return None
        if isinstance(value, str) and value.strip():
            return value
        raise ValueError(f"expected text, got {shown(value)}")

    return PlainValidator(check)


def one_of(*names: str) -> PlainValidator:
    def check(value: Any) -> Any:
        if value in names and isinstance(value, str):
            return value
        if isinstance(value, str):
            raise ValueError(f"unknown value {shown(value)}{suggestion(value, names)}")
        raise ValueError(f"expected one of {', '.join(names)}, got {shown(value)}")

    return PlainValidator(check)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"expected true or false, got {shown(value)}")


def _path(value: Any) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and value.strip() and "\0" not in value:
        return value
    raise ValueError(f"expected a path, got {shown(value)}")


def _paths(value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, os.PathLike)):
        return (_path(value),)
    if isinstance(value, (list, tuple)) and value:
        return tuple(_path(item) for item in value)
    raise ValueError(f"expected a path or a list of paths, got {shown(value)}")


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"expected a list of names, got {shown(value)}")
    for name in value:
        _name(name)
    if len(set(value)) != len(value):
        raise ValueError(f"expected each name once, got {shown(list(value))}")
    return tuple(value)


def _name(value: Any) -> str:
    if isinstance(value, str) and value.strip() == value != "":
        return value
    raise ValueError(f"expected a name, got {shown(value)}")


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def plain_data(value: Any) -> Any:
    """JSON-like data only: what a file could hold, and what can be sent to a host and compared on a resume."""
    _refuse_objects(value, ())
    return frozen(value)


def _refuse_objects(value: Any, path: tuple[str, ...]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"expected names as keys, got {shown(key)}")
            _refuse_objects(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_objects(item, path)
    elif not (value is None or isinstance(value, (str, int, bool)) or is_number(value)):
        raise ValueError(f"expected plain data{' in ' + '.'.join(path) if path else ''}, got {shown(value)}")


def _options(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping of option names to values, got {shown(value)}")
    return plain_data(value)


def _column_types(value: Any) -> Any:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"expected a mapping of column names to type names, got {shown(value)}")
    for column, kind in value.items():
        _name(column)
        if not isinstance(kind, str) or not kind:
            raise ValueError(f"expected a type name for column {column!r}, got {shown(kind)}")
    return frozen(value)


def _rows(value: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"expected a list of rows, each a dict, got {shown(value)}")
    for index, row in enumerate(value):
        if not isinstance(row, dict) or not all(isinstance(key, str) for key in row):
            raise ValueError(f"expected each row to be a dict with names as keys; row {index} is {shown(row)}")
    return tuple(value)


Auto = Literal["auto"]
CountOrAuto = Annotated[int | Auto, whole(1, auto=True)]
Count = Annotated[int, whole(1)]
OptionalCount = Annotated[int | None, whole(1, none=True)]
Natural = Annotated[int, whole(0)]
Text = Annotated[str, text()]
OptionalText = Annotated[str | None, text(none=True)]
Flag = Annotated[bool, PlainValidator(_flag)]
Seconds = Annotated[float, seconds()]
Share = Annotated[float, PlainValidator(_share)]
OptionalSize = Annotated[float | None, PlainValidator(_optional(_share))]
OptionalSeconds = Annotated[float | None, seconds(none=True)]
FilePath = Annotated[str, PlainValidator(_path)]
OptionalPath = Annotated[str | None, PlainValidator(_optional(_path))]
FilePaths = Annotated[tuple[str, ...], PlainValidator(_paths)]
Name = Annotated[str, PlainValidator(_name)]
OptionalName = Annotated[str | None, PlainValidator(_optional(_name))]
Names = Annotated[tuple[str, ...] | None, PlainValidator(_optional(_names))]
Options = Annotated[dict[str, Any], PlainValidator(_options)]
ColumnTypes = Annotated[dict[str, str] | None, PlainValidator(_optional(_column_types))]
RowList = Annotated[tuple[dict[str, Any], ...] | None, PlainValidator(_optional(_rows))]
