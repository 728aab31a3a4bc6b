"""Steps whose work is a Python function in a worker process: map, and the function forms of filter and expand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from penstock.data.base import Row
from penstock.data.limits import MAX_EXPANDED_BYTES
from penstock.data.sizes import memory_of
from penstock.protocol.messages import Answer, Request
from penstock.steps.base import Children, Columns, Failed, Filtered, Outcome, PoolKind


class FunctionLogic:
    """What the three have in common: the row itself is the payload, the function's result the answer's value."""

    pool: PoolKind = "python"
    columns: pa.Schema | None = None

    def render(self, row: Row) -> Request | Failed:
        return Request(row)


class MergingLogic(FunctionLogic):
    """kept: columns of the source, which come out as they came in. A function may give them back, not change them.
    only: above a join, the columns that it adds; then it may change no other, since branches are kept apart by them."""

    def __init__(self, kept: frozenset[str] = frozenset(), only: frozenset[str] | None = None) -> None:
        self._kept, self._only = kept, only

    def _merged(self, row: Row, result: Row) -> Row | Failed:
        """`result` over `row`."""
        given_back = self._kept.intersection(result) if self._only is None else result.keys() - self._only
        if not given_back:
            return {**row, **result}
        for name in sorted(given_back):
            if not _equal(row.get(name), result[name]):
                what = "is a source column and can't be overwritten; return it under another name"
                if name not in self._kept:
                    what = "is not one of the step's `columns`; above a join a function adds those only"
                return Failed("function_result", f"column {name!r} {what}")
        return {**row, **result, **{name: row[name] for name in given_back if name in row}}


class MapLogic(MergingLogic):
    """Merges the dict that the function returns over the row."""

    def apply(self, row: Row, answer: Answer | None) -> Outcome:
        result: Any = answer.value if answer is not None else None
        problem = wrong_row(result)
        if problem:
            return Failed(
                "function_result", f"a map function must return a dict of column names to values, not {problem}"
            )
        merged = self._merged(row, result)
        return merged if isinstance(merged, Failed) else Columns(merged)


class FilterFunctionLogic(FunctionLogic):
    """Keeps the row where the function's result is true in Python's sense."""

    columns: pa.Schema | None = pa.schema([])

    def apply(self, row: Row, answer: Answer | None) -> Outcome:
        return Columns(row) if answer is not None and answer.value else Filtered()


class ExpandFunctionLogic(MergingLogic):
    """Each dict of the list that the function returns, merged over the row, continues in its place."""

    def apply(self, row: Row, answer: Answer | None) -> Outcome:
        result = answer.value if answer is not None else None
        if result is None:
            return Filtered()
        if not isinstance(result, (list, tuple)):
            return Failed("function_result", f"an expand function must return a list of dicts, not {described(result)}")
        children: list[Row] = []
        sizes: list[int] = []
        carried = memory_of(row)
        for index, child in enumerate(result):
            problem = wrong_row(child)
            if problem:
                return Failed("function_result", f"an expand function must return dicts; child {index} is {problem}")
            merged = self._merged(row, child)
            if isinstance(merged, Failed):
                return merged
            children.append(merged)
            sizes.append(carried + memory_of(child))
        if sum(sizes) > MAX_EXPANDED_BYTES:
            return Failed("function_result", too_much(len(children), sum(sizes)) + ": return fewer or smaller ones")
        return Children(children, sizes) if children else Filtered()


def _equal(old: Any, new: Any) -> bool:
    try:
        return bool(old == new) or (old != old and new != new)  # NaN is itself
    except ArithmeticError:  # a signaling NaN equals nothing, and says so loudly
        return False


def wrong_row(value: Any) -> str | None:
    """What is wrong with a value that should be a dict of column names to values, or None."""
    if not isinstance(value, dict):
        return described(value)
    for name in value:
        if not isinstance(name, str) or not name:
            return f"a dict with the key {name!r}"
    return None


def too_much(rows: int, size_bytes: int) -> str:
    return (
        f"its {rows:,} rows would take about {size_bytes:,} bytes together, and the limit for those of one row is "
        f"{MAX_EXPANDED_BYTES:,}: each carries all columns of the row"
    )


def described(value: Any) -> str:
    text = repr(value[:80] if isinstance(value, (str, bytes, list, tuple)) else value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:77] + '...'}"
