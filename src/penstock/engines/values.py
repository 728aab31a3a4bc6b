"""Python values on the wire: a row arrives with the types it left with, and nothing is unpickled.

msgpack knows null, booleans, 64-bit integers, floats, text, bytes, lists and maps. What a row may hold beyond that
travels as a msgpack extension, one code per type:

    1 int beyond 64 bits (decimal text)     5 time (ISO 8601)
    2 datetime without zone (ISO 8601)      6 timedelta (days, seconds, microseconds as three int64)
    3 datetime with a zone (ISO 8601,       7 Decimal (text)
      then "|" and the zone's name if any)  8 UUID (16 bytes)
    4 date (ISO 8601)

Tuples arrive as lists; numpy scalars and arrays as the Python values that they hold; subclasses of str, int, float,
list and dict as those. Everything else (sets, objects) can't be sent: `to_wire` raises `UnsendableValue`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec.msgpack import Ext

__all__ = ["UnsendableValue", "from_extension", "to_wire"]

_PLAIN = frozenset({str, int, float, bool, type(None), bytes})
_PLAIN_BUT_INT = _PLAIN - {int}
_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1
_MAX_DEPTH = 100  # deeper than any row that a reader lets through; also ends on a list that holds itself

_BASES: tuple[type, ...] = (str, int, float)  # whose subclasses travel as the plain type

_TIMEDELTA = struct.Struct(">qqq")


class UnsendableValue(TypeError):
    """A value that has no form on the wire. The message says its type and where in the row it stands."""


def to_wire(value: Any) -> Any:
    """`value` in msgpack's own types and `Ext`; the very same object where nothing has to change."""
    return _convert(value, "", 0)


def _convert(value: Any, path: str, depth: int) -> Any:
    kind = type(value)
    if kind in _PLAIN_BUT_INT or (kind is int and _INT64_MIN <= value <= _UINT64_MAX):
        return value
    if depth > _MAX_DEPTH:
        raise UnsendableValue(f"{path or 'the value'} is nested deeper than {_MAX_DEPTH} levels")
    if kind is dict:
        return _convert_dict(value, path, depth)
    if kind is list:
        return _convert_list(value, path, depth)
    pack = _PACKERS.get(kind)
    return pack(value) if pack is not None else _convert_other(value, path, depth)


def _convert_dict(value: dict[Any, Any], path: str, depth: int) -> dict[Any, Any]:
    changed: dict[Any, Any] | None = None
    for key, item in value.items():
        if type(key) is not str:
            raise UnsendableValue(f"{path or 'the value'} has the key {key!r}; the keys of a row are text")
        kind = type(item)
        if kind in _PLAIN_BUT_INT:
            continue
        new = _convert(item, f"{path}.{key}" if path else key, depth + 1)
        if new is not item:
            if changed is None:
                changed = dict(value)
            changed[key] = new
    return value if changed is None else changed


def _convert_list(value: list[Any], path: str, depth: int) -> list[Any]:
    changed: list[Any] | None = None
    for index, item in enumerate(value):
        if type(item) in _PLAIN_BUT_INT:
            continue
        new = _convert(item, f"{path}[{index}]", depth + 1)
        if new is not item:
            if changed is None:
                changed = list(value)
            changed[index] = new
    return value if changed is None else changed


def _convert_other(value: Any, path: str, depth: int) -> Any:
    """Subclasses and look-alikes of what msgpack or an extension can carry."""
    if isinstance(value, Ext):
        return value
    if isinstance(value, dict):
        return _convert_dict(dict(value), path, depth)
    if isinstance(value, (tuple, list)):
        return _convert_list(list(value), path, depth)
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return _convert(value.tolist(), path, depth + 1)
    for plain in _BASES:
        if isinstance(value, plain):
            return _convert(plain(value), path, depth + 1)
    for kind, pack in _PACKERS.items():
        if isinstance(value, kind):
            return pack(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise UnsendableValue(f"{path or 'the value'} is of type {type(value).__name__}, which a row can't hold")


def _pack_datetime(value: datetime) -> Ext:
    if value.tzinfo is None:
        return Ext(2, value.isoformat().encode())
    zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) and value.tzinfo.key else ""
    return Ext(3, f"{value.isoformat()}|{zone}".encode())


def _pack_timedelta(value: timedelta) -> Ext:
    return Ext(6, _TIMEDELTA.pack(value.days, value.seconds, value.microseconds))


_PACKERS: dict[type, Callable[[Any], Ext]] = {
    int: lambda value: Ext(1, _decimal_text(value).encode()),
    datetime: _pack_datetime,
    date: lambda value: Ext(4, value.isoformat().encode()),
    time: lambda value: Ext(5, value.isoformat().encode()),
    timedelta: _pack_timedelta,
    Decimal: lambda value: Ext(7, str(value).encode()),
    UUID: lambda value: Ext(8, value.bytes),
}


def _decimal_text(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # more digits than Python converts (sys.set_int_max_str_digits)
        raise UnsendableValue(f"an integer of {value.bit_length()} bits is too long to be sent") from None


def _unpack_zoned(text: str) -> datetime:
    moment, _, zone = text.partition("|")
    value = datetime.fromisoformat(moment)
    return value.astimezone(ZoneInfo(zone)) if zone else value


_UNPACKERS: dict[int, Callable[[bytes], Any]] = {
    1: lambda data: int(data.decode()),
    2: lambda data: datetime.fromisoformat(data.decode()),
    3: lambda data: _unpack_zoned(data.decode()),
    4: lambda data: date.fromisoformat(data.decode()),
    5: lambda data: time.fromisoformat(data.decode()),
    6: lambda data: timedelta(*_TIMEDELTA.unpack(data)),
    7: lambda data: Decimal(data.decode()),
    8: lambda data: UUID(bytes=data),
}


def from_extension(code: int, data: memoryview) -> Any:
    """The value of a msgpack extension; ValueError for one that is not ours."""
    unpack = _UNPACKERS.get(code)
    if unpack is None:
        raise ValueError(f"unknown msgpack extension {code}")
    return unpack(bytes(data))
