"""Text for terminals: control characters from data are escaped.

File names, column names, rows, messages of exceptions and words of services may hold escape sequences, carriage
returns and marks that turn the direction of writing. Every sink of text (the command line's output, the displays)
passes what it writes through `visible`, so that nothing depends on each caller.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

__all__ = ["cleaned", "json_visible", "visible"]

Made = TypeVar("Made", bound=msgspec.Struct)
# C0 but tab and line feed, DEL, C1; marks of direction; separators of lines and paragraphs; halves of surrogate pairs.
_ACTING = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_PATTERN = re.compile(f"[{_ACTING}]")


def visible(text: str) -> str:
    """`text` with each character that acts on a terminal as an escape that is read: ``\\x1b``, ``\\r``, ``\\u202e``.

    Tabs and line feeds stay.
    """
    return _PATTERN.sub(_escape, text)


def json_visible(text: str) -> str:
    """JSON text of equal value, with those characters as ``\\uXXXX``. JSON has escaped what is below U+0020 itself."""
    return _PATTERN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def cleaned(value: Made) -> Made:
    """A structure with `visible` texts, for views that put colours between them."""
    return _cleaned(value)  # type: ignore[no-any-return]


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, msgspec.Struct):
        return type(value)(**{name: _cleaned(getattr(value, name)) for name in value.__struct_fields__})
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_cleaned(item) for item in value)
    return value


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] == "\r":
        return "\\r"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
