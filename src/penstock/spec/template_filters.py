"""How much each filter of a template can make, and the filters charged with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

from jinja2.exceptions import SecurityError

from penstock.spec.template_meter import (
    METER,
    counted,
    is_stream,
    lines_of,
    list_bytes,
    printf_bytes,
    shown_bytes,
    size_of,
    text_bytes,
    tree_of,
    unit,
)

__all__ = ["bounded_filter", "word_count"]

MAX_PRECISION = 400  # of `round`: no float has more digits
_WORD = re.compile(r"\w+")
_ESCAPED = 6  # "<" becomes "\u003c"

# Of the text that is given, where the filter works on its text as a whole.
_TIMES = {
    "escape": 5,
    "e": 5,
    "forceescape": 5,
    "urlencode": 12,
    "xmlattr": 6,
    "pprint": 40,
    "string": 1,
    "upper": 3,
    "lower": 3,
    "capitalize": 3,
    "title": 16,
    "striptags": 8,
    "truncate": 1,
    "trim": 1,
}
_LISTS = frozenset({"list", "sort", "unique", "groupby", "dictsort", "slice", "reverse", "min", "max", "sum", "items"})
_FREE = frozenset({"default", "d", "first", "last", "length", "count", "attr", "wordcount", "safe", "filesizeformat"})


def word_count(value: Any) -> int:
    """The words of a text, none of which is kept."""
    return sum(1 for _ in _WORD.finditer(str(value)))


def bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same filter, charged before it works. What jinja passes first (a context) is not looked at."""
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0
    cost = _COSTS.get(name)
    if name in _FREE:
        return function
    times = None if cost is not None or name in _LISTS else _TIMES.get(name)

    @wraps(function)
    def charged(*args: Any, **kwargs: Any) -> Any:
        if times is not None and not kwargs and len(args) == skipped + 1 and type(args[skipped]) is str:
            METER.take(times * text_bytes(args[skipped]))  # most often, and so first
            return function(*args)
        if len(args) > skipped and is_stream(args[skipped]):
            items = counted(args[skipped])
            held = list(items) if name in ("join", "xmlattr", "tojson", "pprint", "string", "replace") else iter(items)
            args = (*args[:skipped], held, *args[skipped + 1 :])
        if cost is not None:
            METER.take(cost(*args[skipped:], **kwargs))
        else:
            METER.take(_plain(name, *args[skipped:], *kwargs.values()))
        return function(*args, **kwargs)

    return charged


def _plain(name: str, *values: Any) -> int:
    beside = sum(map(size_of, values[1:]))
    if not values:
        return beside
    if name in _LISTS:
        return list_bytes(values[0]) + beside
    if name in _TIMES:
        return _TIMES[name] * shown_bytes(values[0]) + beside
    return size_of(values[0]) + beside


def _shown_length(value: Any) -> int:
    return len(value) if isinstance(value, str) else shown_bytes(value)


def _width(width: Any) -> int:
    return len(width) if isinstance(width, str) else int(width)


def _center(value: Any, width: Any = 80) -> int:
    return max(_shown_length(value), _width(width)) * unit(value)


def _indent(s: Any, width: Any = 4, *flags: Any, **named: Any) -> int:
    lines = lines_of(s) if isinstance(s, str) else _shown_length(s)
    return (_shown_length(s) + lines * max(_width(width), 0)) * unit(s, width)


def _format(value: Any, *args: Any, **kwargs: Any) -> int:
    return printf_bytes(value if isinstance(value, str) else str(value), kwargs or args)


def _tojson(value: Any, indent: Any = None) -> int:
    size = _ESCAPED * shown_bytes(value)
    if indent:
        values, levels = tree_of(value)
        size += values * levels * max(_width(indent), 0)
    return size


def _batch(value: Any, linecount: Any, fill_with: Any = None) -> int:
    return list_bytes(value) + (0 if fill_with is None else 8 * max(int(linecount), 0))


def _slice(value: Any, slices: Any, fill_with: Any = None) -> int:
    return list_bytes(value) + 64 * max(int(slices), 0)


def _join(value: Any, d: Any = "", attribute: Any = None) -> int:
    if isinstance(value, str):
        return len(value) * (1 + _shown_length(d)) * unit(value, d)
    items = value if isinstance(value, (list, tuple, dict, set, frozenset)) else ()
    count = len(value) if hasattr(value, "__len__") else 0
    return sum(map(shown_bytes, items)) + 32 * (count - len(items)) + count * _shown_length(d) * unit(d)


def _replace(s: Any, old: Any, new: Any, count: Any = None) -> int:
    text = s if isinstance(s, str) else "" if shown_bytes(s) < 0 else str(s)
    return (len(text) + text.count(str(old)) * len(str(new))) * unit(text, new)


def _wordwrap(
    s: Any, width: Any = 79, break_long_words: Any = True, wrapstring: Any = None, break_on_hyphens: Any = True
) -> int:
    size = _shown_length(s)
    ends = 2 * size // max(int(width), 1) + (lines_of(s) if isinstance(s, str) else 1)
    return (8 * size + ends * len(wrapstring or "\n")) * unit(s, wrapstring)


def _urlize(value: Any, trim_url_limit: Any = None, nofollow: Any = False, *beside: Any, **named: Any) -> int:
    text = value if isinstance(value, str) else str(value) if shown_bytes(value) else ""
    links = text.count(".") + text.count(":") + text.count("@")
    around = 100 + sum(_shown_length(given) for given in (*beside, *named.values()) if given is not None)
    return (8 * len(text) + links * around) * unit(text)


def _round(value: Any, precision: Any = 0, method: Any = "common") -> int:
    if abs(precision) > MAX_PRECISION:
        raise SecurityError(f"a precision above {MAX_PRECISION}")
    return 0


_COSTS: dict[str, Callable[..., int]] = {
    "center": _center,
    "indent": _indent,
    "format": _format,
    "tojson": _tojson,
    "batch": _batch,
    "slice": _slice,
    "join": _join,
    "replace": _replace,
    "wordwrap": _wordwrap,
    "urlize": _urlize,
    "round": _round,
}
