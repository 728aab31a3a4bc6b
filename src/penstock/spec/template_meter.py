"""What one rendering may allocate: every value that it makes is charged before it is made.

A limit on each value is not enough: a template can keep many. So the bytes of all values of one rendering are summed,
whether it still holds them or not, and that sum bounds its memory. Sizes are upper bounds of a like order, not exact.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn

from jinja2.exceptions import SecurityError

MAX_VALUE_BYTES = 64 << 20  # of one value: 16 million characters of the widest kind
MAX_RENDERING_BYTES = 256 << 20  # of all values of one rendering together
ITEM_BYTES = 64  # of one turn of a loop, or one item of a list that is made

_FORMAT_NUMBER = re.compile(r"\d+")
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


class Meter(threading.local):
    """The bytes that are left to the rendering of this thread."""

    left = MAX_RENDERING_BYTES

    def begin(self, limit_bytes: int = MAX_RENDERING_BYTES) -> None:
        self.left = limit_bytes

    def take(self, size_bytes: int) -> None:
        """Charge a value that is about to be made. Raises SecurityError."""
        self.left = left = self.left - size_bytes
        if left < 0 or size_bytes > MAX_VALUE_BYTES:
            self._refuse(size_bytes)

    def _refuse(self, size_bytes: int) -> NoReturn:
        if size_bytes > MAX_VALUE_BYTES:
            raise SecurityError(
                f"a value of up to {size_bytes:,} bytes; the limit for one value of a template is {MAX_VALUE_BYTES:,}"
            )
        raise SecurityError(
            f"the values that the template makes for this row take more than {MAX_RENDERING_BYTES:,} bytes together"
        )


METER = Meter()


def counted(items: Iterable[Any]) -> Counted:
    """The same items, each charged as it is taken."""
    return Counted(items)


class Counted:
    """An iterable whose items are charged; it has a length where `items` has one."""

    def __init__(self, items: Iterable[Any]) -> None:
        iter(items)  # what can't be iterated over says so here, as it would without us
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        take = METER.take
        for item in self._items:
            take(ITEM_BYTES)
            yield item

    def __len__(self) -> int:
        return len(self._items)  # type: ignore[arg-type]  # TypeError is what the caller expects then


def is_stream(value: Any) -> bool:
    """Whether it is an iterator: its items are not made yet."""
    return hasattr(value, "__next__")


def text_bytes(text: str) -> int:
    """Memory of a text of that length and kind."""
    return len(text) if text.isascii() else 4 * len(text)


def unit(*values: Any) -> int:
    """Bytes of one character of a text made of these values."""
    return 1 if all(not isinstance(value, str) or value.isascii() for value in values) else 4


def size_of(value: Any) -> int:
    """Memory of a copy of a value, not of what it refers to."""
    if isinstance(value, str):
        return text_bytes(value)
    if isinstance(value, (bytes, bytearray)):
        return len(value)
    if isinstance(value, (list, tuple)):
        return 8 * len(value)
    if isinstance(value, (dict, set, frozenset)):
        return 100 * len(value)
    return value.bit_length() // 8 if isinstance(value, int) else 0


def list_bytes(value: Any) -> int:
    """Memory of the list of what a value holds; each character of a text becomes a text."""
    try:
        count = len(value)
    except TypeError:
        return 0
    return count * (100 if isinstance(value, str) and not value.isascii() else 40)


def shown_bytes(value: Any) -> int:
    """At most so many bytes has str(value). Raises SecurityError once it is over the limit of one value."""
    if isinstance(value, str):
        return text_bytes(value)
    total = 0
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, (list, tuple, set, frozenset)):
            total += 2 * len(item)
            stack.extend(item)
        elif isinstance(item, dict):
            total += 4 * len(item)
            stack.extend(item)
            stack.extend(item.values())
        else:
            total += _shown_alone(item)
        if total > MAX_VALUE_BYTES or len(stack) > MAX_VALUE_BYTES // 8:
            METER.take(max(total, MAX_VALUE_BYTES + 1))
    return total


def _shown_alone(value: Any) -> int:
    if isinstance(value, str):
        return 2 + (4 * len(value) if value.isascii() else 40 * len(value))  # as repr escapes what can't be printed
    if isinstance(value, (bytes, bytearray)):
        return 4 * len(value)
    if isinstance(value, int):
        return value.bit_length() // 3 + 2
    return 32


def tree_of(value: Any) -> tuple[int, int]:
    """(values, levels) of nested lists and dicts."""
    count = levels = 0
    row = [value]
    while row:
        levels += 1
        count += len(row)
        if count * 8 > MAX_VALUE_BYTES:
            METER.take(count * 8)
        inner = [item for item in row if isinstance(item, (list, tuple, dict))]
        row = [held for item in inner for held in (item.values() if isinstance(item, dict) else item)]
    return count, levels


def lines_of(text: str) -> int:
    """How many lines it has at most."""
    return 1 + sum(map(text.count, _LINE_ENDS))


def numbers_in(spec: str) -> int:
    """The sum of the widths and precisions that stand in a format."""
    return sum(int(number) if len(number) < 12 else MAX_VALUE_BYTES + 1 for number in _FORMAT_NUMBER.findall(spec))


def printf_bytes(form: Any, values: Any) -> int:
    """At most so many bytes has form % values."""
    if not isinstance(form, (str, bytes)):
        return 0
    text = form if isinstance(form, str) else form.decode("latin-1")
    given = list(values.values()) if isinstance(values, dict) else values if isinstance(values, tuple) else (values,)
    stars = sum(abs(value) for value in given if isinstance(value, int)) if "*" in text else 0
    longest = max((_one_shown(value) for value in given), default=0)
    shown = longest * text.count("%") if isinstance(values, dict) else sum(map(_one_shown, given))
    return (len(text) + numbers_in(text) + stars) * unit(text, *given) + shown


def format_bytes(value: Any, spec: str) -> int:
    """At most so many bytes has format(value, spec)."""
    return numbers_in(spec) * unit(value, spec) + _one_shown(value)


def _one_shown(value: Any) -> int:
    if isinstance(value, float):
        return 400
    if isinstance(value, Decimal):
        exponent = value.as_tuple().exponent
        return len(str(value)) + (abs(exponent) if isinstance(exponent, int) else 0)
    return 200 if isinstance(value, datetime) else shown_bytes(value)
