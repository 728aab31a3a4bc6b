"""One phase on its way to the disk: its columns, where its finished rows go, and the entry that each batch makes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa

from penstock.core.counts import Counts
from penstock.data.base import PartWriter
from penstock.data.dead import dead_table
from penstock.ledger.base import CommitBatch
from penstock.ledger.batch import Encoded, Locate, TableMaker, encode_batch, moved_by
from penstock.ledger.bits import EndedPositions
from penstock.ledger.carried import after_phase
from penstock.ledger.entry import Entry, SegmentFact
from penstock.ledger.files import Files
from penstock.ledger.joining import Joined, join_tails, tail_after
from penstock.ledger.layout import Layout
from penstock.ledger.opening import successor
from penstock.ledger.part_keys import DeadKey
from penstock.ledger.partial import stage_partial
from penstock.ledger.publish import Publisher
from penstock.ledger.segments import decode_schema, encode_schema
from penstock.ledger.stage import Stage

__all__ = ["PhaseWriter", "TableFactory"]

TableFactory = Callable[[pa.Schema | None], TableMaker]


class PhaseWriter:
    """carries: its rows go to a next phase; order: in which they are published.

    begun: the entry that the phase stands at; writers: of data/ and of dead/
    """

    def __init__(
        self,
        layout: Layout,
        files: Files,
        begun: Entry,
        table: TableFactory,
        writers: tuple[PartWriter, PartWriter],
        *,
        phases: int,
        order: str,
        locate: Locate,
    ) -> None:
        self._layout, self._files, self._locate = layout, files, locate
        self._writers, self._phases = writers, phases
        self.carries = begun.phase < phases - 1
        self.order = "input" if self.carries else order
        where = str(layout.entry(begun.seq))
        self._builder = table(decode_schema(begun.schema, where) if begun.schema else None)
        self._schema_seen: pa.Schema | None = None
        self._schema_text = begun.schema

    def encode(self, batch: CommitBatch) -> Encoded:
        return encode_batch(self._builder, batch.finished, batch.dead, self._locate, carries=self.carries)

    def moved(self, batch: CommitBatch, encoded: Encoded) -> Counts:
        """What changes in the totals of the batch with the rows that could not be encoded."""
        return moved_by(batch, encoded.rejected, carries=self.carries)

    def stage(
        self,
        stage: Stage,
        batch: CommitBatch,
        encoded: Encoded,
        before: Entry,
        previous: str,
        ended: EndedPositions,
        below: int,
    ) -> Entry:
        """Write the files of a batch, and name them in the entry after `before`, whose hash is `previous`.

        ended: with the batch; below: rows of lower positions are published. Raises OSError, LedgerDamaged.
        """
        publish = stage.add_carried if self.carries else partial(stage.add_parts, writer=self._writers[0])
        live = Publisher(self._layout, self._files, before, publish).stage(stage, encoded.table, below)
        joined = self._stage_rest(stage, batch, encoded, before)
        unfinished = stage_partial(stage, self._layout, self._files, before, batch.partial, ended)
        progress = {
            "watermark": batch.watermark,
            "ended": ended.encode(),
            "counts": batch.counts + self.moved(batch, encoded),
            "published_to": below if self.order == "input" else 0,
            "total_rows": batch.total_rows if batch.total_rows is not None else before.total_rows,
            "finished": batch.final and not self.carries,
            "schema": self._fixed_schema() if batch.finished else before.schema,
            "mark": batch.mark or before.mark,
        }
        files = _files_after(stage, before, live, unfinished, joined)
        entry = successor(before, previous, kind="commit", **progress, **files)
        return after_phase(entry, self._phases) if batch.final and self._phases > 1 else entry

    def _stage_rest(self, stage: Stage, batch: CommitBatch, encoded: Encoded, before: Entry) -> Joined:
        writer, dead_writer = self._writers
        joined = join_tails(stage, self._layout, self._files, before, self._writers)
        dead = sorted([*batch.dead, *encoded.rejected], key=lambda row: (row.position, row.path))
        if dead:
            keys = [DeadKey((row.origin, tuple(row.path)), before.phase) for row in dead]
            stage.add_dead(dead_table(dead), keys, dead_writer)
        if batch.final and not self.carries and before.parts_total == 0 and not stage.parts:
            stage.add_placeholder(self._builder.build([])[0], writer)
        stage.sync()
        return joined

    def _fixed_schema(self) -> str:
        schema = self._builder.fixed_schema()
        if schema is not None and schema is not self._schema_seen:
            self._schema_seen, self._schema_text = schema, encode_schema(schema)
        return self._schema_text


def _files_after(
    stage: Stage,
    before: Entry,
    live: tuple[SegmentFact, ...],
    unfinished: tuple[SegmentFact, ...],
    joined: Joined,
) -> dict[str, Any]:
    """The fields of an entry that name files: those of `stage`, what is live after it, and what goes."""
    placeholder = stage.placeholder or ("" if stage.parts else before.placeholder)
    drops = [
        f".penstock/segments/{segment.name}"
        for segment in (*before.segments, *before.partial)
        if segment not in (*live, *unfinished)
    ]
    drops += joined.drops
    new = tuple(part for part in stage.parts if f"data/{part.name}" not in joined.names and part.rows)
    new_dead = tuple(part for part in stage.dead_parts if f"dead/{part.name}" not in joined.names)
    if before.placeholder and not placeholder:
        drops.append(f"data/{before.placeholder}")
    return {
        "segments": live,
        "partial": unfinished,
        "carried": (*before.carried, *stage.carried),
        "parts": tuple(stage.parts),
        "dead_parts": tuple(stage.dead_parts),
        "drops": tuple(drops),
        "parts_total": stage.parts_total,
        "data_tail": tail_after(joined.data, new),
        "dead_tail": tail_after(joined.dead, new_dead),
        "dead_parts_total": before.dead_parts_total + len(new_dead),
        "part_rows_total": before.part_rows_total + stage.part_rows,
        "placeholder": placeholder,
    }
