"""Input and output of the ledger: plain data, shared by the runtime and the simulator.

Flow of one commit: the flow decides that it is time and up to which position the output may be published; the
runtime hands the finished rows to `Ledger.commit` on the writer thread; the receipt goes back to the flow as an
event. Outputs, dead rows and the watermark of one batch become durable in one manifest entry, or not at all.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.core.counts import Counts
from penstock.core.shape import SourceMark
from penstock.data.base import Origin

__all__ = [
    "CommitBatch",
    "DeadRow",
    "Finished",
    "LedgerState",
    "Origin",
    "PaidResult",
    "PaidResults",
    "Receipt",
    "Row",
]

Row = dict[str, Any]


class DeadRow(msgspec.Struct):
    """One line of the dead-letter table (contract.md). `input` is JSON of the row as far as it could be read.

    Not columns of the table:
    position  of its source row in this phase
    origin    of its source row in the source; -1: the same as `position`. With `path` it is what tells dead rows
              apart: a source may name one file twice, and then (source, row, path) stands for two rows
    phase     in which the row died; known once it was read back from the ledger
    """

    position: int
    source: str
    row: int
    path: list[int]
    step: str
    code: str
    message: str
    attempts: int
    input: str
    origin: int = -1
    phase: int = 0

    def __post_init__(self) -> None:
        if self.origin < 0:
            self.origin = self.position


class Finished(msgspec.Struct):
    """One output row. `path`: child indexes below the row of `position`, empty where nothing was expanded.

    origin: with its whole path, of a row that an earlier phase has left or a retry runs again; None: the row is its own
    """

    position: int
    path: tuple[int, ...]
    row: Row
    origin: Origin | None = None


class PaidResult(msgspec.Struct, frozen=True):
    """What came of one request of a row that has not ended: the row's path below `position`, the step's index among
    those of the pipeline, and the answer as its maker encoded it."""

    position: int
    path: tuple[int, ...]
    step: int
    answer: bytes


# position -> (path, step) -> answer, of source rows that have not ended
PaidResults = dict[int, dict[tuple[tuple[int, ...], int], bytes]]


class CommitBatch(msgspec.Struct):
    """Everything that becomes durable together.

    finished    output rows, in any order; each of a source row that is in `ended` (families become durable whole)
    dead        dead rows; likewise
    ended       positions of source rows that ended in this batch (output, dead or filtered), ascending
    watermark   every source position below it has ended, this batch included
    publish_to  with order input: publish rows of positions below it to data/; None: publish nothing now
                (with order completion any not-None value publishes all that is finished)
    counts      totals with this batch included
    total_rows  rows of the whole source, once its end was seen
    final       the phase is complete with this batch: publish everything; after the last phase the run is finished
    partial     results of rows that have not ended, each reported once; `Ledger.paid` returns them to a resumed run
    mark        what was read of the source when this was decided; None: as before
    """

    finished: list[Finished]
    dead: list[DeadRow]
    ended: list[int]
    watermark: int
    publish_to: int | None
    counts: Counts
    total_rows: int | None = None
    final: bool = False
    partial: list[PaidResult] = []
    mark: SourceMark | None = None


class Receipt(msgspec.Struct):
    """What a commit did. `rejected`: rows that could not be encoded; they were committed as dead rows instead.

    `counts`: the totals as the entry has them: those of the batch, with `moved` for what was rejected.
    """

    seq: int
    rejected: list[DeadRow]
    part_rows: int
    bytes_written: int
    took_s: float
    counts: Counts = Counts()
    moved: Counts = Counts()


class LedgerState(msgspec.Struct):
    """What an opened ledger knows of the run so far."""

    epoch: int
    seq: int
    watermark: int
    ended_above: set[int]  # positions at or above the watermark that have ended
    counts: Counts
    total_rows: int | None
    finished: bool
    fresh: bool  # True when this is a new run
    phase: int = 0
    phase_counts: Counts = Counts()  # the totals when the phase began
    mark: SourceMark | None = None  # what was read of the source
