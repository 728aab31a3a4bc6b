"""Why a line is no row: the slow path of the JSONL reader, with a second, stricter look at suspicious lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from penstock.data.checks import Fault
from penstock.data.limits import MAX_DEPTH, MAX_LINE_BYTES
from penstock.data.lines import LongLine


class _NotJson(ValueError):
    """A number word that RFC 8259 does not know."""


class _Duplicate(ValueError):
    """An object that has a key twice."""


def _refuse_constant(name: str) -> Any:
    raise _NotJson(name)


def _unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Duplicate(key)
            seen.add(key)
    return found


def line_fault(line: bytes | LongLine, number: int, offset: int, cut_off: bool) -> Fault:
    """The reason why `line` can't be decoded.

    number   of the line in its file, from 1
    offset   of the line's first byte in its file
    cut_off  the line is the last of its file and has no line feed
    """
    where = f"line {number}"
    if isinstance(line, LongLine):
        return "line_too_long", f"{where}: {line.size_bytes} bytes; the limit is {MAX_LINE_BYTES}"
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return "bad_encoding", f"{where}: not UTF-8 at byte {offset + error.start} of the file: {error.reason}"
    if depth_of_text(line) > MAX_DEPTH:
        return "too_deep", f"{where}: nested deeper than {MAX_DEPTH} levels"
    return _text_fault(text, where, cut_off)


def _text_fault(text: str, where: str, cut_off: bool) -> Fault:
    try:
        json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_object)
    except json.JSONDecodeError as error:
        hint = "; the file ends here without a line feed: probably a partial upload" if cut_off else ""
        return "bad_json", f"{where}:{error.colno}: {error.msg}{hint}"
    except _NotJson as error:
        return "bad_number", f"{where}: {error} is not a JSON number"
    except _Duplicate as error:
        return "bad_json", f"{where}: duplicate key {str(error)[:100]!r}"
    except ValueError:  # Python's limit on the digits of an integer
        return "bad_number", f"{where}: an integer with too many digits"
    except RecursionError:
        return "too_deep", f"{where}: nested deeper than {MAX_DEPTH} levels"
    return _decoded_fault(text, where)


def _decoded_fault(text: str, where: str) -> Fault:
    """The line decodes here, though not in msgspec: a number out of range, or half of a surrogate pair."""
    value = json.loads(text)
    for string in _strings(value):
        try:
            string.encode("utf-8")
        except UnicodeEncodeError:
            return "bad_encoding", f"{where}: a lone surrogate (\\ud800 to \\udfff) is not a character"
    return "bad_number", f"{where}: a number out of the range of 64-bit floats"


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def depth_of_text(line: bytes) -> int:
    """How deep brackets nest in a line, those inside strings not counted."""
    if line.count(b"[") + line.count(b"{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    inside = False
    skip = False
    for byte in line:
        if inside:
            if skip:
                skip = False
            elif byte == 0x5C:
                skip = True
            elif byte == 0x22:
                inside = False
        elif byte == 0x22:
            inside = True
        elif byte in (0x5B, 0x7B):
            depth += 1
            deepest = max(deepest, depth)
        elif byte in (0x5D, 0x7D):
            depth -= 1
    return deepest


def depth_of(value: Any) -> int:
    """How deep lists and dicts nest, without recursion."""
    deepest = 0
    level = [value]
    while level:
        level = [
            inner
            for outer in level
            if isinstance(outer, (list, dict))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        deepest += bool(level)
    return deepest


def count_keys(value: Any) -> int:
    """How many keys the objects inside a value have, all together; without recursion."""
    count = 0
    pending = [value]
    while pending:
        outer = pending.pop()
        if isinstance(outer, dict):
            count += len(outer)
            outer = outer.values()
        pending.extend(inner for inner in outer if isinstance(inner, (dict, list)))
    return count


def may_repeat_a_key(line: bytes, row: dict[str, Any]) -> bool:
    """False when `line`, decoded as `row`, surely has no object with a key twice.

    Decoding keeps the last of two equal keys, so the row then has fewer keys than were written. Each written key has
    a colon: as many colons as keys, and none was lost. Text with colons needs the second look: unless there is space
    between, a key's colon follows a quotation mark; quotation marks inside strings only add to that count.
    """
    if b" :" in line or b"\t:" in line or b"\r:" in line:
        return line.count(b":") != count_keys(row)
    quoted = line.count(b'":')
    if quoted == len(row):
        return False
    keys = count_keys(row)
    return quoted != keys and line.count(b":") != keys


def repeated_key(line: bytes, number: int) -> Fault | None:
    """The second look: decode again, keeping count of keys."""
    try:
        json.loads(line, object_pairs_hook=_unique_object)
    except _Duplicate as error:
        return "bad_json", f"line {number}: duplicate key {str(error)[:100]!r}"
    except (ValueError, RecursionError):
        return None
    return None
