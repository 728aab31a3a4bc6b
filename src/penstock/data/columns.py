"""Rows to tables of one schema: every part of a run has the same columns with the same types.

Columns known ahead (the source's, and outputs of steps whose types are known) keep their types. The others (what a
map or an expand adds) are fixed by the first batch that has rows:

- their types are inferred as in `infer.py`: whole numbers int64, with fractions float64, nothing but nulls string
- each stands behind the columns that come before it in its row, so that outputs keep the order of their steps

After that nothing changes: a row with a value of another type, or with a column that is not among the fixed ones, is
rejected with the reason, alone; a column that a row lacks is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import pyarrow as pa

from penstock.data.base import Row
from penstock.data.checks import ColumnCheck
from penstock.data.infer import infer_field, is_plain
from penstock.data.limits import MAX_KEYS
from penstock.data.sizes import shown_names
from penstock.errors import InputError

_SHOWN_COLUMNS = 3  # of the columns of one row that are not known

Rejected = tuple[int, str, str]  # (index of the row, column, message)


class TableBuilder:
    """Builds tables from rows.

    schema  the columns whose types are known ahead, or None
    order   names of known columns in the order of the output; default: the order of `schema`
    types   of further columns, should they turn up in the first batch; those it does not name are inferred
    """

    def __init__(
        self, schema: pa.Schema | None = None, order: Sequence[str] = (), types: pa.Schema | None = None
    ) -> None:
        self._types = pa.schema([]) if types is None else types
        self._known = pa.schema([]) if schema is None else schema
        self._order = list(order) or self._known.names
        self._schema: pa.Schema | None = None
        self._checks: list[ColumnCheck] = []
        self._refused: dict[str, str] = {}  # columns that no type was found for, and why

    @classmethod
    def from_fixed(cls, schema: pa.Schema) -> TableBuilder:
        """A builder that continues with the columns of an earlier one (`fixed_schema`)."""
        builder = cls(schema)
        builder._fix(schema)
        return builder

    def fixed_schema(self) -> pa.Schema | None:
        """The schema of every table from now on; None before the first batch with rows."""
        return self._schema

    def build(self, rows: Sequence[Row]) -> tuple[pa.Table, list[Rejected]]:
        """(table, rejected): the rows that fit, in order, and for each other row at least one reason."""
        if self._schema is None:
            if not rows:
                return self._known.empty_table(), []
            self._fix(self._first_schema(rows))
        schema = self._schema
        assert schema is not None
        rejected = self._unknown_columns(rows)
        arrays, faults = self._arrays(rows, {index for index, _, _ in rejected})
        rejected += faults
        if rejected:
            out = {index for index, _, _ in rejected}
            arrays, more = self._arrays([row for index, row in enumerate(rows) if index not in out], set())
            assert not more
            rejected.sort(key=itemgetter(0))
        if not arrays:
            return pa.table({}).select([]), rejected
        return pa.table(arrays, schema=schema), rejected

    def _fix(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._checks = [ColumnCheck(field.name, field.type) for field in schema]

    def _first_schema(self, rows: Sequence[Row]) -> pa.Schema:
        names = self._column_order(rows)
        known = {field.name: field for field in (*self._types, *self._known)}
        return pa.schema([known[name] if name in known else self._inferred(name, rows) for name in names])

    def _column_order(self, rows: Sequence[Row]) -> list[str]:
        names = list(self._order)
        seen = set(names)
        most = len(seen) + MAX_KEYS
        for row in rows:
            if row.keys() <= seen:
                continue
            before = 0
            for name in row:
                if name not in seen:
                    if len(names) >= most:  # a row with more is rejected: its further columns are not among the fixed
                        break
                    names.insert(before, name)
                    seen.add(name)
                before = max(before, names.index(name) + 1)
        return names

    def _inferred(self, name: str, rows: Sequence[Row]) -> pa.Field:
        values = _values(name, rows)
        try:
            return infer_field(name, values)
        except InputError:  # of a Python type that no column holds: those rows are rejected, the others decide
            try:
                return infer_field(name, filter(is_plain, values))
            except InputError as error:  # objects with too many keys: rows that have one are rejected
                self._refused[name] = error.message
                return pa.field(name, pa.string())

    def _unknown_columns(self, rows: Sequence[Row]) -> list[Rejected]:
        known = {check.name: None for check in self._checks}.keys()
        rejected: list[Rejected] = []
        for index, row in enumerate(rows):
            if row.keys() <= known:
                continue
            unknown = [name for name in row if name not in known]
            fixed = f"is not among the columns fixed by the first rows ({shown_names(known)})"
            if len(known) > MAX_KEYS:
                fixed += "; where names are ids, return one list of {key, value} objects instead"
            rejected += [(index, name, fixed) for name in unknown[:_SHOWN_COLUMNS]]
        return rejected

    def _arrays(self, rows: Sequence[Row], known_bad: set[int]) -> tuple[list[pa.Array], list[Rejected]]:
        arrays: list[pa.Array] = []
        rejected: list[Rejected] = []
        for check in self._checks:
            values = _values(check.name, rows)
            array = check.array(values)
            if array is None:
                faults = [(index, check.fault(value)) for index, value in enumerate(values) if index not in known_bad]
                why = self._refused.get(check.name)
                rejected += [(index, check.name, why or fault[1]) for index, fault in faults if fault is not None]
            else:
                arrays.append(array)
        return arrays, rejected


def _values(name: str, rows: Sequence[Row]) -> list[Any]:
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name) for row in rows]
