"""What one phase leaves to the next: its finished rows as segments, in order; and the reading of them as a source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pyarrow as pa

from penstock.data.arrow_rows import batch_rows
from penstock.data.base import Chunk, Row
from penstock.ledger.entry import Entry
from penstock.ledger.files import Files
from penstock.ledger.keyed import origins_of, without_keys
from penstock.ledger.layout import Layout
from penstock.ledger.segments import decode_schema, read_segment

__all__ = ["CarriedRows", "after_phase"]


def after_phase(entry: Entry, phases: int) -> Entry:
    """The entry that ends a phase: what it carried is what the next one reads, whose positions begin at 0.

    After the last phase the first one stands again, behind the source rows that were taken in: a run with a limit may
    go on with a higher one.
    """
    spent = tuple(f".penstock/segments/{segment.name}" for segment in entry.inputs)
    ended = msgspec.structs.replace(
        entry,
        kind="phase",
        phase_counts=entry.counts,
        inputs=entry.carried,
        carried=(),
        partial=(),
        ended="",
        drops=(*entry.drops, *spent),
    )
    if entry.phase == phases - 1:
        taken = entry.counts.rows_in
        return msgspec.structs.replace(
            ended, phase=0, watermark=taken, published_to=taken, input_schema="", schema="", data_schema=entry.schema
        )
    following = entry.phase + 1
    return msgspec.structs.replace(
        ended,
        phase=following,
        watermark=0,
        published_to=0,
        input_schema=entry.schema,
        schema=entry.data_schema if following == phases - 1 else "",
    )


class CarriedRows:
    """A source (data.base.Source) of the rows that the phase before has finished. Positions are their ordinals.

    Raises LedgerDamaged while reading where a segment is missing or altered.
    """

    def __init__(self, layout: Layout, files: Files, entry: Entry) -> None:
        self._layout, self._files, self._facts = layout, files, entry.inputs
        where = str(layout.entry(entry.seq))
        self.schema = decode_schema(entry.input_schema, where) if entry.input_schema else pa.schema([])
        self.total_rows: int | None = sum(fact.rows for fact in self._facts)
        self._next = -1
        self._tables: Iterator[pa.Table] = iter(())
        self._held: pa.Table | None = None

    def read(self, start: int, skip: Callable[[int], bool] | None, max_rows: int) -> Chunk | None:
        if start != self._next:
            self._seek(start)
        table = self._held
        while table is None or not table.num_rows:
            table = next(self._tables, None)
            if table is None:
                return None
        taken, self._held = table.slice(0, max_rows), table.slice(max_rows)
        self._next = start + taken.num_rows
        wanted = [index for index in range(taken.num_rows) if skip is None or not skip(start + index)]
        if len(wanted) < taken.num_rows:
            taken = taken.take(pa.array(wanted, pa.int64()))
        rows, sizes = self._rows(taken)
        return Chunk(
            positions=[start + index for index in wanted],
            rows=rows,
            sizes_bytes=sizes,
            unreadable=[],
            next_position=self._next,
            origins=origins_of(taken),
        )

    def _rows(self, table: pa.Table) -> tuple[list[Row], list[int]]:
        rows: list[Row] = []
        sizes: list[int] = []
        for batch in without_keys(table, origins=True).to_batches():
            found, sizes_bytes, _ = batch_rows(batch, self.schema)
            rows += found
            sizes += sizes_bytes
        return rows, sizes

    def _seek(self, start: int) -> None:
        """Whole segments before `start` are not opened."""
        before, index = 0, 0
        while index < len(self._facts) and before + self._facts[index].rows <= start:
            before += self._facts[index].rows
            index += 1
        self._tables = self._from(index, start - before)
        self._held, self._next = None, start

    def _from(self, index: int, skip_rows: int) -> Iterator[pa.Table]:
        for fact in self._facts[index:]:
            for table in read_segment(self._layout, self._files, fact):
                passed = min(skip_rows, table.num_rows)
                skip_rows -= passed
                yield table.slice(passed)

    def locate(self, position: int) -> tuple[str, int]:
        """Rows of later phases carry where they came from; only what has none is located here."""
        return ("", position)

    def estimate_rows(self) -> int | None:
        return self.total_rows

    def identity(self) -> dict[str, Any]:
        return {"segments": [fact.hash for fact in self._facts]}

    def close(self) -> None:
        self._tables, self._held = iter(()), None
