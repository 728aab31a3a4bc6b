"""Rows passed between phases: finished rows as ordered segments, and reading them as a source."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import pyarrow as pa

from penstock.data.arrow_rows import batch_rows
from penstock.data.base import Chunk, Row, RowFamily
from penstock.data.proof import ReadProof
from penstock.ledger.entry import Entry
from penstock.ledger.files import Files
from penstock.ledger.keyed import count_below, key_at, origins_of, without_keys
from penstock.ledger.layout import Layout
from penstock.ledger.segments import decode_schema, read_segment

__all__ = ["CarriedRows", "after_phase"]

_NOTHING: pa.Table = pa.table({})


def after_phase(entry: Entry, phases: int) -> Entry:
    """The entry that ends a phase: what it carried is what the next one reads, whose positions begin at 0.

    After the last phase the first one stands again, behind the source rows that were taken in: a run with a limit may
    continue with a higher one. A phase leaves no gap, so that their number is the position where it continues.
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
    """A source (data.base.Source) of what the phase before has left. Positions are the ordinals of the source rows that
    it left anything of; all rows of one are read together.

    Raises LedgerDamaged while reading where a segment is missing or altered.
    """

    def __init__(self, layout: Layout, files: Files, entry: Entry) -> None:
        self._layout, self._files, self._facts = layout, files, entry.inputs
        where = str(layout.entry(entry.seq))
        self.schema = decode_schema(entry.input_schema, where) if entry.input_schema else pa.schema([])
        self.proof: ReadProof | None = None  # each segment has its hash
        self.total_rows: int | None = sum(fact.begun for fact in self._facts)
        self._next = -1
        self._tables: Iterator[pa.Table] = iter(())
        self._held = _NOTHING

    def read(self, start: int, skip: Callable[[int], bool] | None, max_rows: int) -> Chunk | None:
        """Of at most `max_rows` rows, or of one position."""
        if start != self._next:
            self._seek(start)
        taken = self._take(max_rows)
        if taken is None:
            return None
        places, count = _places(taken, start)
        self._next = start + count
        if skip is not None:
            wanted = [index for index, position in enumerate(places) if not skip(position)]
            taken, places = taken.take(pa.array(wanted, pa.int64())), [places[index] for index in wanted]
        return self._chunk(taken, places)

    def _chunk(self, table: pa.Table, places: list[int]) -> Chunk:
        rows, sizes = self._rows(table)
        origins = origins_of(table)
        alone: list[int] = []  # rows that are all there is of their source rows
        families: list[RowFamily] = []
        begin = 0
        while begin < len(places):
            end = bisect_right(places, places[begin], begin)
            if end - begin == 1:
                alone.append(begin)
            else:
                here = slice(begin, end)
                families.append(RowFamily(places[begin], rows[here], sizes[here], origins[here]))
            begin = end
        return Chunk(
            positions=[places[index] for index in alone],
            rows=[rows[index] for index in alone],
            sizes_bytes=[sizes[index] for index in alone],
            unreadable=[],
            next_position=self._next,
            origins=[origins[index] for index in alone],
            families=families,
        )

    def _rows(self, table: pa.Table) -> tuple[list[Row], list[int]]:
        rows: list[Row] = []
        sizes: list[int] = []
        for batch in without_keys(table).to_batches():
            found, sizes_bytes, _ = batch_rows(batch, self.schema)
            rows += found
            sizes += sizes_bytes
        return rows, sizes

    # ------------------------------------------------------------ tables, cut between source rows

    def _take(self, max_rows: int) -> pa.Table | None:
        """Whole source rows: as many as have at most `max_rows` rows together, but one in any case."""
        held = self._load(max_rows + 1)
        count = held.num_rows
        if count > max_rows:
            count = count_below(held, key_at(held, max_rows)[0])
            while not count:  # the first one has more; how many is known when another begins, or none does
                end, loaded = count_below(held, key_at(held, 0)[0] + 1), held.num_rows
                if end == loaded:
                    held = self._load(loaded + 1)
                if end < loaded or held.num_rows == loaded:
                    count = end
        self._held = held.slice(count)
        return held.slice(0, count) if count else None

    def _load(self, rows: int) -> pa.Table:
        """What is held, which is at least so many rows unless there are no more."""
        held = [self._held] if self._held.num_rows else []
        loaded = self._held.num_rows
        while loaded < rows and (table := next(self._tables, None)) is not None:
            held.append(table)
            loaded += table.num_rows
        self._held = pa.concat_tables(held) if held else _NOTHING
        return self._held

    def _seek(self, start: int) -> None:
        """Whole segments before `start` are not opened."""
        before, index = 0, 0
        while index < len(self._facts) and before + self._facts[index].begun <= start:
            before += self._facts[index].begun
            index += 1
        self._tables = self._from(index)
        self._held, self._next = _NOTHING, start
        goes_on = 0 < index < len(self._facts) and self._facts[index].first == self._facts[index - 1].last
        self._pass_over(start - before + goes_on)

    def _pass_over(self, source_rows: int) -> None:
        last = None
        for table in self._tables:
            for index, position in enumerate(table.column(0).to_pylist()):
                if position != last:
                    if not source_rows:
                        self._held = table.slice(index)
                        return
                    source_rows -= 1
                    last = position

    def _from(self, index: int) -> Iterator[pa.Table]:
        for fact in self._facts[index:]:
            yield from read_segment(self._layout, self._files, fact)

    def locate(self, position: int) -> tuple[str, int]:
        """Rows of later phases carry where they came from; only what has none is located here."""
        return ("", position)

    def estimate_rows(self) -> int | None:
        return self.total_rows

    def identity(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {"segments": [fact.hash for fact in self._facts]}

    def close(self) -> None:
        self._tables, self._held = iter(()), _NOTHING


def _places(table: pa.Table, start: int) -> tuple[list[int], int]:
    """The position of each row, where those of the phase before become ordinals from `start` on; and how many."""
    places: list[int] = []
    position, last = start - 1, None
    for before in table.column(0).to_pylist():
        position += before != last
        last = before
        places.append(position)
    return places, position + 1 - start
