"""What one commit writes before its entry: a segment, parts of data/, a part of dead/. All of it is garbage until
the entry names it, and can be thrown away without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import msgspec
import pyarrow as pa

from penstock.data.base import PartWriter
from penstock.faults import fault
from penstock.ledger.entry import Entry, PartFact, SegmentFact, hash_bytes
from penstock.ledger.files import Files
from penstock.ledger.keyed import count_positions, without_keys
from penstock.ledger.layout import Layout, carried_name, part_name, partial_name, segment_name, staged_name
from penstock.ledger.part_keys import DeadKey, encode_dead_keys, encode_keys_of
from penstock.ledger.segments import hash_file, write_segment

__all__ = ["PART_BYTES", "PART_ROWS", "Stage"]

# A part is large enough to read fast, and small enough to be held in memory while it is written.
PART_ROWS = 100_000
PART_BYTES = 64 << 20
_KEYS_OF = {"data": "", "dead": "dead-"}  # the two have parts of one name


class Stage:
    """Files of commit `seq`, numbered after those of `before`."""

    def __init__(self, layout: Layout, files: Files, epoch: int, before: Entry) -> None:
        self._layout = layout
        self._files = files
        self._epoch = epoch
        self._before = before
        self._seq = before.seq + 1
        self.parts: list[PartFact] = []
        self.dead_parts: list[PartFact] = []
        self.segment: SegmentFact | None = None
        self.carried: list[SegmentFact] = []
        self._new_parts = self._new_rows = 0
        self.partial: SegmentFact | None = None
        self.placeholder = ""

    def add_segment(self, tables: Iterable[pa.Table]) -> None:
        """Sorted tables with keys, at least one row, become the one segment of this commit."""
        name = segment_name(self._epoch, self._seq)
        self.segment = write_segment(self._layout, self._files, name, tables)
        self._files.sync_folder(self._layout.segments)
        fault("commit.segment_written")

    def add_partial(self, tables: Iterator[pa.Table]) -> SegmentFact | None:
        """Sorted tables with keys become the one segment of partial results; None where they hold no row."""
        first = next((table for table in tables if table.num_rows), None)
        if first is None:
            return None
        name = partial_name(self._epoch, self._seq)
        self.partial = write_segment(self._layout, self._files, name, chain([first], tables))
        self._files.sync_folder(self._layout.segments)
        fault("commit.partial_written")
        return self.partial

    def add_parts(self, tables: Iterable[pa.Table], writer: PartWriter) -> None:
        """Sorted tables with keys become parts of data/, in this order."""
        for table in _cut(iter(tables)):
            name = part_name(self._before.parts_total + self._new_parts, writer.suffix)
            rows = without_keys(table)
            keys = encode_keys_of(table)
            self.put_part(name, keys, rows.num_rows, partial(writer.write, table=rows))
            self._new_parts += 1
            self._new_rows += rows.num_rows

    def put_part(self, name: str, keys: bytes, rows: int, write: Callable[[Path], int]) -> None:
        """A part of data/, new or in the place of one of that name; `write(path)` makes the file and fsyncs it. keys:
        encoded (part_keys.py); b"" for a part without a row."""
        self.parts.append(self._part("data", name, keys, rows, write))
        fault("commit.part_staged")

    def put_joined(self, folder: str, name: str, keys: bytes, rows: int, write: Callable[[Path], int]) -> PartFact:
        """A part of data/ or dead/ that takes the place of several, under the name of the first."""
        joined = self._part(folder, name, keys, rows, write)
        (self.parts if folder == "data" else self.dead_parts).append(joined)
        fault("commit.part_joined")
        return joined

    def _part(self, folder: str, name: str, keys: bytes, rows: int, write: Callable[[Path], int]) -> PartFact:
        known = ""
        if keys:
            known = f"{self._epoch:04d}-{self._seq:08d}-{_KEYS_OF[folder]}{name}.keys"
            self._files.write(self._layout.keys / known, keys)
        fact = self._write(folder, name, rows, write)
        return msgspec.structs.replace(fact, keys=known, keys_hash=hash_bytes(keys) if keys else "")

    def add_carried(self, tables: Iterable[pa.Table]) -> None:
        """Sorted tables with keys become segments that the next phase reads, in this order."""
        last = -1
        for table in _cut(iter(tables)):
            name = carried_name(self._epoch, self._seq, len(self.carried))
            fact = write_segment(self._layout, self._files, name, [table])
            begun = count_positions(table) - (fact.first == last)
            self.carried.append(msgspec.structs.replace(fact, begun=begun))
            last = fact.last
        if self.carried:
            self._files.sync_folder(self._layout.segments)
            fault("commit.carried_written")

    def add_placeholder(self, table: pa.Table, writer: PartWriter) -> None:
        """An empty part, so that data/ of a run without output can be opened and tells its columns."""
        name = part_name(self._before.parts_total + self._new_parts, writer.suffix)
        self.put_part(name, b"", 0, partial(writer.write, table=table))
        self._new_parts += 1
        self.placeholder = name

    def add_dead(self, table: pa.Table, keys: Iterable[DeadKey], writer: PartWriter, name: str = "") -> None:
        """A part of dead/: a new one, or in the place of the one called `name`. keys: of its rows, in their order."""
        name = name or part_name(self._before.dead_parts_total, writer.suffix)
        write = partial(writer.write, table=table)
        self.dead_parts.append(self._part("dead", name, encode_dead_keys(keys), table.num_rows, write))
        fault("commit.dead_staged")

    def sync(self) -> None:
        if self.parts or self.dead_parts:
            self._files.sync_folder(self._layout.staging)
        if any(part.keys for part in (*self.parts, *self.dead_parts)):
            self._files.sync_folder(self._layout.keys)
        fault("commit.stage_synced")

    def discard(self) -> None:
        """Remove what was written, so that a full disk has its room back. What resists is garbage for later."""
        paths = [self._layout.staging / name for name in self._files.names(self._layout.staging)]
        mark = f"{self._epoch:04d}-{self._seq:08d}-"
        names = (segment_name(self._epoch, self._seq), partial_name(self._epoch, self._seq))
        written = [self._layout.segment(name) for name in (*names, *(fact.name for fact in self.carried))]
        written += [self._layout.keys / part.keys for part in (*self.parts, *self.dead_parts) if part.keys]
        for path in (*paths, *written):
            if path.parent != self._layout.staging or path.name.startswith(mark):
                try:
                    self._files.unlink(path)
                except OSError:
                    continue

    @property
    def bytes_written(self) -> int:
        written = sum(part.bytes for part in (*self.parts, *self.dead_parts))
        segments = [fact for fact in (*self.carried, self.segment, self.partial) if fact is not None]
        return written + sum(fact.bytes for fact in segments)

    @property
    def parts_total(self) -> int:
        """The number of the next part."""
        return self._before.parts_total + self._new_parts

    @property
    def part_rows(self) -> int:
        """Rows of new parts, not of those that take the places of others."""
        return self._new_rows

    def _write(self, kind: str, name: str, rows: int, write: Callable[[Path], int]) -> PartFact:
        staged = staged_name(self._epoch, self._seq, kind, name)
        path = self._layout.staged(staged)
        size = self._files.produce(path, write)
        with self._files.open(path) as file:
            digest = hash_file(file)
        return PartFact(name, staged, rows, size, digest)


def _cut(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Regroup tables to at most PART_ROWS rows and about PART_BYTES in memory each."""
    held: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        row_bytes = max(1, table.nbytes // max(1, table.num_rows))
        while table.num_rows:
            room = min(PART_ROWS - rows, max(1, (PART_BYTES - size) // row_bytes))
            piece, table = table.slice(0, room), table.slice(room)
            held.append(piece)
            rows += piece.num_rows
            size += piece.num_rows * row_bytes
            if rows >= PART_ROWS or size >= PART_BYTES:
                yield pa.concat_tables(held)
                held, rows, size = [], 0, 0
    if held:
        yield pa.concat_tables(held)
