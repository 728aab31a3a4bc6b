"""join: rows that reached both branches. What the row has then is put together before the step (rows/views.py)."""

from __future__ import annotations

import pyarrow as pa

from penstock.data.base import Row
from penstock.protocol.messages import Answer, Request
from penstock.steps.base import Columns, Failed, Outcome, PoolKind


class JoinLogic:
    """Adds nothing of its own."""

    pool: PoolKind = None

    def __init__(self) -> None:
        self.columns: pa.Schema | None = pa.schema([])

    def render(self, row: Row) -> Request | Failed:
        return Request(row)

    def apply(self, row: Row, answer: Answer | None) -> Outcome:
        return Columns(row)
