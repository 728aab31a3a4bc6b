"""Rows given in Python as rows of plain values: what decoders of files make, and nothing with methods of its own.

Subclasses of str, int, float, list, tuple and dict become those; values of other types stay, and the column's type
judges them. A row whose values no source could have (text that is not Unicode, a list that holds itself, an object
that raises when it is looked at) is described by the error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.data.base import Row
from penstock.data.checks import Fault

__all__ = ["plain_row"]

_EXACT = frozenset({float, bool, type(None), bytes})
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)
_MAX_DEPTH = 100  # as in JSON sources
_MAX_INT_BITS = 14_280  # more have no decimal text by default


class _Faulty(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.fault: Fault = (code, message)


def plain_row(row: Row) -> tuple[Row, Fault | None]:
    """A copy of `row` with plain values; an empty row and the reason where that can't be."""
    try:
        return {_text(name, "a column's name"): _plain(value, name, 0) for name, value in dict.items(row)}, None
    except _Faulty as error:
        return {}, error.fault
    except Exception as error:  # of a value's own methods
        return {}, ("bad_record", f"a value that can't be read: {type(error).__name__}")


def _plain(value: Any, path: str, depth: int) -> Any:
    kind = type(value)
    if kind in _EXACT:
        return value
    if kind is str:
        return _text(value, path)
    if kind is int:
        if value.bit_length() > _MAX_INT_BITS:
            raise _Faulty("bad_number", f"{path} is an integer of {value.bit_length()} bits")
        return value
    if depth > _MAX_DEPTH:
        raise _Faulty("too_deep", f"{path[:60]}... is nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {_key(name, path): _plain(inner, f"{path}.{name}", depth + 1) for name, inner in dict(value).items()}
    if isinstance(value, list | tuple):
        items = [
            inner if type(inner) in _EXACT else _plain(inner, f"{path}[{index}]", depth + 1)
            for index, inner in enumerate(value)
        ]
        return tuple(items) if isinstance(value, tuple) else items
    for base, plain in _BASES:
        if isinstance(value, base):
            return _plain(plain(value), path, depth + 1)
    return value


def _key(name: Any, path: str) -> str:
    if not isinstance(name, str):
        raise _Faulty("type_mismatch", f"{path} has a key of type {type(name).__name__}; keys are text")
    return _text(name, f"a key of {path}")


def _text(text: str, path: str) -> str:
    plain = text if type(text) is str else str.__str__(text)
    if not plain.isascii():
        try:
            plain.encode()
        except UnicodeEncodeError as error:
            where = path.encode("utf-8", "backslashreplace").decode("utf-8")
            message = f"{where} is not valid Unicode: a lone surrogate at character {error.start}"
            raise _Faulty("bad_encoding", message) from None
    return plain
