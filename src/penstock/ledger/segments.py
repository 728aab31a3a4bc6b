"""Segments: finished rows on disk that are not yet published, as Arrow IPC files with the keys in front.

A segment is written once and never altered. It counts from the moment that a manifest entry names it. What is read
back is checked against the hash in that entry first, and extension types are refused before Arrow sees the schema:
loading one may run code.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from penstock.errors import LedgerDamaged
from penstock.ledger.entry import PartFact, SegmentFact, new_hash
from penstock.ledger.files import Files
from penstock.ledger.keyed import key_at
from penstock.ledger.layout import Layout

__all__ = ["check_part", "decode_schema", "encode_schema", "hash_file", "read_segment", "write_segment"]

# A reader holds one record batch of each segment in memory, so they are kept small.
BATCH_ROWS = 4096
BATCH_BYTES = 1 << 20
_EXTENSION = b"ARROW:extension:name"
_MAGIC = b"ARROW1"


def write_segment(layout: Layout, files: Files, name: str, tables: Iterable[pa.Table]) -> SegmentFact:
    """Write sorted `tables` (with keys, at least one row in all) as segment `name`, durably but for its name.

    Raises OSError.
    """
    stream = iter(tables)
    table = next(stream)
    first, last, rows = key_at(table, 0)[0], 0, 0
    with files.create(layout.segment(name)) as file:
        sink = _HashingWriter(file)
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_file(sink, table.schema, options=options) as writer:
            while table is not None:
                rows += table.num_rows
                last = key_at(table, table.num_rows - 1)[0]
                writer.write_table(table, max_chunksize=_batch_rows(table))
                table = next(stream, None)
    return SegmentFact(name, rows, sink.size, sink.digest.hexdigest(), first, last)


def read_segment(layout: Layout, files: Files, fact: SegmentFact) -> Iterator[pa.Table]:
    """The rows of a segment with their keys, in order, a small table at a time. Raises LedgerDamaged, OSError."""
    path = layout.segment(fact.name)
    try:
        with files.open(path) as file:
            if hash_file(file) != fact.hash:
                raise LedgerDamaged("this segment does not match its hash in the manifest", where=str(path))
            _refuse_extensions(file, str(path))
            file.seek(0)
            with pa.ipc.open_file(file) as reader:
                for number in range(reader.num_record_batches):
                    yield pa.Table.from_batches([reader.get_batch(number)])
    except FileNotFoundError as error:
        raise LedgerDamaged("this segment is missing", where=str(path)) from error
    except pa.ArrowInvalid as error:
        raise LedgerDamaged(f"this segment can't be read: {error}", where=str(path)) from error


def encode_schema(schema: pa.Schema) -> str:
    """An Arrow schema (without keys) as text for the manifest."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode("ascii")


def decode_schema(text: str, where: str) -> pa.Schema:
    """The inverse of `encode_schema`. Raises LedgerDamaged, for extension types too."""
    try:
        data = base64.b64decode(text, validate=True)
        if _EXTENSION in data:
            raise LedgerDamaged("the column schema names an Arrow extension type; none is loaded", where=where)
        return pa.ipc.read_schema(pa.py_buffer(data))
    except (ValueError, OSError, EOFError) as error:  # ArrowInvalid is a ValueError
        raise LedgerDamaged(f"the column schema can't be read: {error}", where=where) from error


def hash_file(file: BinaryIO) -> str:
    digest = new_hash()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def check_part(files: Files, path: Path, part: PartFact) -> None:
    """See that a part is there as it was written. Raises LedgerDamaged, OSError."""
    try:
        with files.open(path) as file:
            found = hash_file(file)
    except FileNotFoundError as error:
        raise LedgerDamaged("this committed part is missing. Restore it from a copy.", where=str(path)) from error
    if found != part.hash:
        raise LedgerDamaged("this part was modified after it was written. Restore it from a copy.", where=str(path))


def _batch_rows(table: pa.Table) -> int:
    row_bytes = max(1, table.nbytes // max(1, table.num_rows))
    return max(1, min(BATCH_ROWS, BATCH_BYTES // row_bytes))


def _refuse_extensions(file: BinaryIO, where: str) -> None:
    """Look for extension types in the two places where an IPC file describes its columns: its head and its footer."""
    file.seek(0)
    head = file.read(16)
    end = file.seek(0, 2)
    if len(head) < 16 or head[:6] != _MAGIC:
        raise LedgerDamaged("this segment is not an Arrow file", where=where)
    file.seek(end - 10)
    tail = file.read(10)
    (schema_bytes,) = struct.unpack("<i", head[12:16])
    (footer_bytes,) = struct.unpack("<i", tail[:4])
    file.seek(16)
    described = file.read(max(0, schema_bytes))
    file.seek(max(0, end - 10 - max(0, footer_bytes)))
    described += file.read(max(0, footer_bytes))
    if tail[4:] != _MAGIC or _EXTENSION in described:
        raise LedgerDamaged("this segment is cut short, or names an Arrow extension type", where=where)


class _HashingWriter:
    """A file for Arrow to write to that hashes what passes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = new_hash()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True
