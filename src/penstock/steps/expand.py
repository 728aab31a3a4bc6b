"""expand by a list column: one row for each element, without a pool."""

from __future__ import annotations

import json

import pyarrow as pa

from penstock.data.base import Row
from penstock.data.limits import MAX_EXPANDED_BYTES
from penstock.data.sizes import memory_of, shown_names
from penstock.protocol.arrays import Array
from penstock.protocol.messages import Answer, Request
from penstock.spec.steps import Expand
from penstock.steps.base import Children, Failed, Filtered, Outcome, PoolKind, StepContext, StepLogic
from penstock.steps.python import ExpandFunctionLogic, described, too_much


def expand_logic(step: Expand, context: StepContext) -> StepLogic:
    if step.column is None:
        return ExpandFunctionLogic(context.source_columns, context.only(step))
    return ExplodeLogic(step.column, step.output or f"{step.column}_item")


class ExplodeLogic:
    """Each element of the list in `column` becomes a row with all columns and the element as `output`.

    A null or empty list: the row ends as filtered.
    """

    pool: PoolKind = None
    columns: pa.Schema | None = None

    def __init__(self, column: str, output: str) -> None:
        self._column = column
        self._output = output

    def render(self, row: Row) -> Request | Failed:
        return Request(row)

    def apply(self, row: Row, answer: Answer | None) -> Outcome:
        if self._column not in row:
            return Failed("template_missing_field", f"no column {self._column!r}; the row has {shown_names(row)}")
        value = row[self._column]
        if value is None:
            return Filtered()
        if not isinstance(value, (list, tuple, Array)):
            return Failed("type_mismatch", f"column {self._column!r}: expected a list, got {described(value)}")
        if not len(value):
            return Filtered()
        carried = memory_of(row)
        sizes = [carried + memory_of(element) for element in value]
        if sum(sizes) > MAX_EXPANDED_BYTES:
            return Failed("encode_error", f"{too_much(len(value), sum(sizes))}, the list too. {self._advice()}")
        return Children([{**row, self._output: element} for element in value], sizes)

    def _advice(self) -> str:
        """How to do without the step: a line for each element, without the list."""
        column, output = json.dumps(self._column), json.dumps(self._output)
        return (
            "Write a line for each element before the run "
            f"(jq -c 'del(.[{column}]) + {{{output}: .[{column}][]}}' FILE > NEW.jsonl)"
        )
