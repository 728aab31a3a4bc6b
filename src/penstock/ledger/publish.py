"""Where the rows of a commit go: those below the publication bound into parts, in key order and together with what
waits in segments; the rest into one new segment.

A segment may be published in part: it stays live until its last row stands in data/, and `published_to` of the entry
says which of its rows do already. Nothing is rewritten for that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import pyarrow as pa

from penstock.errors import InvariantError
from penstock.ledger.base import CommitBatch
from penstock.ledger.bits import EndedPositions
from penstock.ledger.entry import Entry, SegmentFact
from penstock.ledger.files import Files
from penstock.ledger.keyed import count_below, merge
from penstock.ledger.layout import Layout
from penstock.ledger.segments import read_segment
from penstock.ledger.stage import Stage

__all__ = ["MAX_SEGMENTS", "Publisher", "publish_below"]

# From this many on, a commit merges live segments.
MAX_SEGMENTS = 64
_EVERYTHING = sys.maxsize


def publish_below(batch: CommitBatch, before: Entry, ended: EndedPositions, order: str) -> int:
    """Rows of lower positions go to data/ with this batch. Raises InvariantError for a final batch with gaps."""
    if batch.final and next(ended.above(), None) is not None:
        raise InvariantError(f"the final batch leaves source rows behind: its watermark is {batch.watermark}")
    if order == "completion":
        return _EVERYTHING if batch.final or batch.publish_to is not None else 0
    wanted = batch.watermark if batch.final else batch.publish_to or 0
    return max(wanted, before.published_to)


class Sized(Protocol):
    @property
    def bytes(self) -> int: ...


File = TypeVar("File", bound=Sized)


def tiers(live: tuple[File, ...]) -> tuple[tuple[File, ...], tuple[File, ...]]:
    """The files that stay as they are, and those to merge: the newest, back to one larger than all of them together.

    So a row is rewritten about as often as the logarithm of what waits, and not once for each merge.
    """
    together = 0
    for index in range(len(live) - 1, -1, -1):
        if len(live) - index > 2 and live[index].bytes > together:
            return live[: index + 1], live[index + 1 :]
        together += live[index].bytes
    return (), live


class Publisher:
    """Stages the rows of one commit after the entry `before`. publish: where rows below the bound go, in key order."""

    def __init__(
        self, layout: Layout, files: Files, before: Entry, publish: Callable[[Iterator[pa.Table]], None]
    ) -> None:
        self._layout = layout
        self._files = files
        self._before = before
        self._publish = publish

    def stage(self, stage: Stage, table: pa.Table, below: int) -> tuple[SegmentFact, ...]:
        """Write the sorted rows of `table` as parts and a segment; returns the segments that are live afterwards."""
        split = count_below(table, below)
        self._stage_published(table.slice(0, split), below)
        live = tuple(segment for segment in self._before.segments if segment.last >= below)
        rest = table.slice(split)
        if len(live) >= MAX_SEGMENTS:
            kept, small = tiers(live)
            stage.add_segment(merge([*(self._from(segment, below) for segment in small), iter([rest])]))
            live = kept
        elif rest.num_rows:
            stage.add_segment([rest])
        return live if stage.segment is None else (*live, stage.segment)

    def _stage_published(self, table: pa.Table, below: int) -> None:
        due = [segment for segment in self._before.segments if segment.first < below]
        if below <= self._before.published_to:
            due = []  # what they hold below the bound stands in data/ already
        if due or table.num_rows:
            streams = [self._unpublished(segment, below) for segment in due]
            self._publish(merge([*streams, iter([table])]))

    def _unpublished(self, segment: SegmentFact, below: int) -> Iterator[pa.Table]:
        """Rows of a segment that are to be published now."""
        for table in self._from(segment, self._before.published_to):
            count = count_below(table, below)
            yield table.slice(0, count)
            if count < table.num_rows:
                return

    def _from(self, segment: SegmentFact, position: int) -> Iterator[pa.Table]:
        """Rows of a segment from `position` on."""
        for table in read_segment(self._layout, self._files, segment):
            yield table.slice(count_below(table, position)) if segment.first < position else table
