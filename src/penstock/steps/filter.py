"""filter by an expression: judged at once, without a pool; or by a function."""

from __future__ import annotations

import pyarrow as pa

from penstock.data.base import Row
from penstock.data.templates import Expression, TemplateFailure
from penstock.protocol.messages import Answer, Request
from penstock.spec.steps import Filter
from penstock.steps.base import Columns, Failed, Filtered, Outcome, PoolKind, StepLogic
from penstock.steps.python import FilterFunctionLogic


def filter_logic(step: Filter) -> StepLogic:
    return FilterFunctionLogic() if step.expr is None else FilterLogic(step.expr)


class FilterLogic:
    """Keeps the rows for which the expression is true. Null is a value here (`score is not none`)."""

    pool: PoolKind = None

    def __init__(self, expr: str) -> None:
        self._expression = Expression(expr)
        self.columns: pa.Schema | None = pa.schema([])

    def render(self, row: Row) -> Request | Failed:
        return Request(row)

    def apply(self, row: Row, answer: Answer | None) -> Outcome:
        try:
            return Columns(row) if self._expression.holds(row) else Filtered()
        except TemplateFailure as failure:
            return Failed(failure.code, failure.message)
