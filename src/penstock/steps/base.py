"""The interface of step logic.

    render   row -> what to ask of the pool           (pool "model" or "python")
    apply    row, the pool's answer -> an Outcome     (answer None where there is no pool)

Both are pure and never change the row given. Failures of the row come out as Failed, never as exceptions.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import msgspec
import pyarrow as pa

from penstock.data.base import Row
from penstock.protocol.messages import Answer, Request
from penstock.spec.steps import Step

PoolKind = Literal["model", "python"] | None


class Columns(msgspec.Struct, frozen=True):
    """The row continues, with these values."""

    row: Row


class Filtered(msgspec.Struct, frozen=True):
    """The row ends here, neither output nor dead."""


class Children(msgspec.Struct, frozen=True):
    """The row ends here and these continue in its place; never empty. sizes_bytes: of each, once it is written: what
    the rows share in memory is in each of them."""

    rows: list[Row]
    sizes_bytes: list[int] = []


class Failed(msgspec.Struct, frozen=True):
    """The row dies. `code` is one of errors.DEAD_CODES."""

    code: str
    message: str


Outcome = Columns | Filtered | Children | Failed


class StepContext(NamedTuple):
    """Where a step stands. source_columns: those that no step may change. above_join: it is followed by a join."""

    source_columns: frozenset[str] = frozenset()
    above_join: bool = False

    def only(self, step: Step) -> frozenset[str] | None:
        """The columns that its function may return with values of its own; None: any but those of the source."""
        return frozenset(step.added_columns() or ()) if self.above_join else None


class StepLogic(Protocol):
    """One step.

    pool     where its work is done: "model", "python" (worker processes), or None (here, in `apply`)
    columns  what it adds, with types, where that is known ahead; None: known only from its results
    """

    pool: PoolKind
    columns: pa.Schema | None

    def render(self, row: Row) -> Request | Failed:
        """What this row asks of the pool: payload and options; the rest is the runtime's."""
        ...

    def apply(self, row: Row, answer: Answer | None) -> Outcome:
        """The row after a successful answer (`answer.code == ""`)."""
        ...
