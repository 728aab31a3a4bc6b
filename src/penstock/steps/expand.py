"""expand by a list column: one row for each element, without a pool."""

from __future__ import annotations

import pyarrow as pa

from penstock.data.base import Row
from penstock.engines.messages import Answer
from penstock.steps.base import Asked, Children, Failed, Filtered, Outcome, PoolKind
from penstock.steps.python import described


class ExplodeLogic:
    """Each element of the list in `column` becomes a row with all columns and the element as `output`.

    A null or empty list: the row ends as filtered.
    """

    pool: PoolKind = None
    columns: pa.Schema | None = None

    def __init__(self, column: str, output: str) -> None:
        self._column = column
        self._output = output

    def render(self, row: Row) -> Asked | Failed:
        return Asked(None)

    def apply(self, row: Row, answer: Answer | None) -> Outcome:
        if self._column not in row:
            return Failed("template_missing_field", f"no column {self._column!r}; the row has {', '.join(row)}")
        value = row[self._column]
        if value is None:
            return Filtered()
        if not isinstance(value, (list, tuple)):
            return Failed("type_mismatch", f"column {self._column!r}: expected a list, got {described(value)}")
        return Children([{**row, self._output: element} for element in value]) if value else Filtered()
