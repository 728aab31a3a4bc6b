"""Results of paid steps of rows that have not ended, in segments of their own, so that a resume need not ask again.

A commit adds what is new since the one before. A segment is dropped once every source row in it has ended; segments are
merged in tiers as those of finished rows are, and what has ended meanwhile is left out then. So they stay in proportion
to the window, however long a slow row holds the watermark back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

import pyarrow as pa

from penstock.ledger.base import PaidResult, PaidResults
from penstock.ledger.bits import EndedPositions
from penstock.ledger.entry import Entry, SegmentFact
from penstock.ledger.files import Files
from penstock.ledger.keyed import KEY_COLUMNS, Key, merge, with_keys
from penstock.ledger.layout import Layout
from penstock.ledger.publish import tiers
from penstock.ledger.segments import read_segment
from penstock.ledger.stage import Stage

__all__ = ["MAX_PARTIAL", "read_partial", "stage_partial"]

MAX_PARTIAL = 16  # from this many live segments on, a commit merges them
_SCHEMA = pa.schema([pa.field("step", pa.int32(), nullable=False), pa.field("answer", pa.binary(), nullable=False)])


def stage_partial(
    stage: Stage, layout: Layout, files: Files, before: Entry, new: Sequence[PaidResult], ended: EndedPositions
) -> tuple[SegmentFact, ...]:
    """Write `new`, and what has to be merged; returns the segments that are live afterwards. Raises OSError,
    LedgerDamaged."""
    live = tuple(segment for segment in before.partial if segment.last >= ended.watermark)
    streams = [iter([_table(new)])] if new else []
    if len(live) >= MAX_PARTIAL:
        live, small = tiers(live)
        streams += [_unfinished(layout, files, segment, ended) for segment in small]
    added = stage.add_partial(merge(streams)) if streams else None
    return live if added is None else (*live, added)


def read_partial(layout: Layout, files: Files, entry: Entry) -> PaidResults:
    """What is known of the rows that have not ended. Raises LedgerDamaged, OSError."""
    ended = EndedPositions.decode(entry.watermark, entry.ended)
    found: PaidResults = {}
    for segment in entry.partial:
        for table in _unfinished(layout, files, segment, ended):
            columns = [table.column(index).to_pylist() for index in range(KEY_COLUMNS + len(_SCHEMA))]
            for position, path, step, answer in zip(*columns, strict=True):
                found.setdefault(position, {})[tuple(path), step] = answer
    return found


def _table(results: Sequence[PaidResult]) -> pa.Table:
    ordered = sorted(results, key=attrgetter("position", "path"))
    keys: list[Key] = [(result.position, result.path) for result in ordered]
    columns = [
        pa.array([result.step for result in ordered], pa.int32()),
        pa.array([result.answer for result in ordered], pa.binary()),
    ]
    return with_keys(keys, pa.Table.from_arrays(columns, schema=_SCHEMA))


def _unfinished(layout: Layout, files: Files, segment: SegmentFact, ended: EndedPositions) -> Iterator[pa.Table]:
    for table in read_segment(layout, files, segment):
        wanted = [index for index, position in enumerate(table.column(0).to_pylist()) if position not in ended]
        if wanted:
            yield table if len(wanted) == table.num_rows else table.take(pa.array(wanted, pa.int64()))
