"""Python values on the wire: a row arrives with the types it left with, and nothing is unpickled.

msgpack knows null, booleans, 64-bit integers, floats, text, bytes, lists and maps. What a row may hold beyond that
travels as a msgpack extension, one code per type:

    1 int beyond 64 bits (decimal text)     5 time (ISO 8601)
    2 datetime without zone (ISO 8601)      6 timedelta (days, seconds, microseconds as three int64)
    3 datetime with a zone (ISO 8601,       7 Decimal (text)
      then "|" and the zone's name if any)  8 UUID (16 bytes)
    4 date (ISO 8601)                       9 array of numbers (see `arrays`)

Tuples arrive as lists; numpy arrays and typed memoryviews of numbers as an `Array`, other numpy values as the Python
values that they hold; subclasses of str, int, float,
list and dict as those. Everything else (sets, objects, text that is not valid Unicode) can't be sent: `to_wire` raises
`UnsendableValue`. What it lets through the other side can read, whatever methods a value's class has of its own.
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

from penstock.protocol.arrays import EXTENSION, Array, as_native, pack_array, unpack_array

__all__ = ["UnsendableValue", "as_extension", "escaped", "for_function", "from_extension", "to_wire"]

_PLAIN = frozenset({float, bool, type(None), bytes, Array})  # beside text, which may not be Unicode, and integers
_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1
_MAX_DEPTH = 100  # deeper than any row that a reader lets through; also ends on a list that holds itself

_MAX_INT_BITS = 14_280  # the most that Python turns into text by default (4,300 digits), and that the reader takes

# Whose subclasses travel as the plain type; by the methods of that type, whatever the subclass does.
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)

_TIMEDELTA = struct.Struct(">qqq")


class UnsendableValue(TypeError):
    """A value that has no form on the wire. The message says its type and where in the row it stands."""


def to_wire(value: Any) -> Any:
    """`value` in msgpack's own types and `Ext`; the very same object where nothing has to change.

    Raises UnsendableValue, also where the value's own methods raise.
    """
    try:
        return _convert(value, "", 0)
    except (UnsendableValue, MemoryError):
        raise
    except Exception as error:
        raise UnsendableValue(f"the value can't be read: {type(error).__name__}: {_text_of(error)}") from None


def escaped(text: str) -> str:
    """`text` with escapes in place of what is not valid Unicode."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _text_of(error: Exception) -> str:
    try:
        return str(error)
    except Exception:
        return "an error that can't be shown"


def _convert(value: Any, path: str, depth: int) -> Any:
    kind = type(value)
    if kind in _PLAIN or (kind is int and _INT64_MIN <= value <= _UINT64_MAX):
        return value
    if kind is str:
        return value if value.isascii() else _valid_text(value, path)
    if depth > _MAX_DEPTH:
        raise UnsendableValue(f"{path or 'the value'} is nested deeper than {_MAX_DEPTH} levels")
    if kind is dict:
        return _convert_dict(value, path, depth)
    if kind is list:
        return _convert_list(value, path, depth)
    pack = _PACKERS.get(kind)
    return pack(value) if pack is not None else _convert_other(value, path, depth)


def _valid_text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnsendableValue(
            f"{path or 'the value'} is not valid Unicode: a lone surrogate at character {error.start}"
        ) from None
    return text


def _convert_dict(value: dict[Any, Any], path: str, depth: int) -> dict[Any, Any]:
    changed: dict[Any, Any] | None = None
    for key, item in value.items():
        if type(key) is not str:
            raise UnsendableValue(f"{path or 'the value'} has the key {key!r}; the keys of a row are text")
        if not key.isascii():
            _valid_text(key, f"the key {key!r}" + (f" of {path}" if path else ""))
        kind = type(item)
        if kind in _PLAIN or (kind is str and item.isascii()):
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
        kind = type(item)
        if kind in _PLAIN or (kind is str and item.isascii()):
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
        if (array := Array.of(value)) is not None:
            return array
        # A scalar that Python has no type for (longdouble) is its own `tolist`.
        if type(native := value.tolist()) is not type(value):
            return _convert(native, path, depth + 1)
    if isinstance(value, memoryview) and value.format not in ("B", "c"):
        array = Array.of(value)
        if array is not None:
            return array
    for base, plain in _BASES:
        if isinstance(value, base):
            return _convert(plain(value), path, depth + 1)
    for kind, pack in _PACKERS.items():
        if isinstance(value, kind):
            return _readable(pack(value), value, kind, path)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise UnsendableValue(f"{path or 'the value'} is of type {type(value).__name__}, which a row can't hold")


def _readable(packed: Ext, value: Any, kind: type, path: str) -> Ext:
    """What a subclass says of itself may be no value of its base: pandas' NaT is a datetime, and none."""
    try:
        from_extension(packed.code, memoryview(packed.data))
    except Exception:
        raise UnsendableValue(
            f"{path or 'the value'} is of type {type(value).__name__}, and can't be sent as a {kind.__name__}"
        ) from None
    return packed


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
    if value.bit_length() > _MAX_INT_BITS:  # also where a function has lifted Python's own limit
        raise UnsendableValue(f"an integer of {value.bit_length()} bits is too long to be sent")
    return str(value)


def _unpack_zoned(text: str) -> datetime:
    """The zone by its name, where this machine has it and agrees; else the offset from UTC."""
    moment, _, name = text.partition("|")
    value = datetime.fromisoformat(moment)
    zone = _zone(name)
    if zone is None:
        return value
    for fold in (0, 1):
        # Not `astimezone`: it passes through UTC, where a moment near the first or last year has no date.
        there = value.replace(tzinfo=zone, fold=fold)
        if there.utcoffset() == value.utcoffset():
            return there
    return value


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ValueError, KeyError, OSError):  # no such zone here, or no name of one
        return None


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
    if code == EXTENSION:
        return unpack_array(data)
    unpack = _UNPACKERS.get(code)
    if unpack is None:
        raise ValueError(f"unknown msgpack extension {code}")
    return unpack(bytes(data))


def for_function(code: int, data: memoryview) -> Any:
    """`from_extension` for the process that calls a user's function: arrays as numpy has them, where it is there."""
    value = from_extension(code, data)
    return as_native(value) if code == EXTENSION else value


def as_extension(value: Any) -> Ext:
    """What the encoder asks for a value that msgpack does not have. Raises TypeError."""
    if isinstance(value, Array):
        return pack_array(value)
    raise TypeError(f"a value of type {type(value).__name__} can't be sent")
