"""Arrow IPC: the file format (also Feather v2) and the stream format, distinguished by their first bytes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pyarrow as pa

from penstock.data.arrow_rows import storage_schema
from penstock.data.base import Source
from penstock.data.ipc_sizes import unfolded_bytes
from penstock.data.limits import MAX_BATCH_BYTES
from penstock.data.passing import may_pass
from penstock.data.paths import DataFile
from penstock.data.proof import FileProof, byte_content, byte_range
from penstock.data.tables import open_tables
from penstock.errors import InputError

_FILE_MAGIC = b"ARROW1"
_OLD_FEATHER_MAGIC = b"FEA1"
_FILE_HEAD_BYTES = 8
_CHECKED_ROWS = 4096  # rows checked, and handed on, at a time: a batch may be as large as the file


class IpcBatches:
    """The record batches of one Arrow file or stream, memory-mapped. Raises InputError."""

    def __init__(self, file: DataFile, proof: FileProof | None = None) -> None:
        self._path, self._name = str(file.path) if proof is None else proof.path, file.name
        self._proof = proof
        self._file: pa.RecordBatchFileReader | None = None
        self.rows: int | None = None
        try:
            self._map = pa.memory_map(self._path, "r")
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"can't be opened: {error}", where=file.name, passing=may_pass(error)) from None
        try:
            self.schema = storage_schema(self._open())
        except (pa.ArrowException, OSError, ValueError) as error:
            self._map.close()
            reason = str(error).partition("\n")[0]
            raise InputError(f"is not an Arrow file or stream: {reason}", where=file.name) from None
        except InputError as error:
            self._map.close()
            raise InputError(error.message, where=file.name) from None

    def from_row(self, row: int) -> tuple[Iterator[pa.RecordBatch], int]:
        if self._file is None:
            self._map.seek(0)
            return self._checked(iter(pa.ipc.open_stream(self._map))), row
        return self._checked(map(self._file.get_batch, range(self._file.num_record_batches))), row

    def close(self) -> None:
        self._file = None
        self._map.close()

    def _open(self) -> pa.Schema:
        magic = self._map.read(6)
        self._map.seek(0)
        if magic.startswith(_OLD_FEATHER_MAGIC):
            raise InputError("is a Feather version 1 file; rewrite it as version 2")
        if magic != _FILE_MAGIC:
            return pa.ipc.open_stream(self._map).schema
        self._file = pa.ipc.open_file(self._map)
        self.rows = self._file.count_rows()
        return self._file.schema

    def _checked(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches in slices, each checked in full: a damaged file must not make Arrow read past its buffers."""
        at = 0
        with pa.memory_map(self._path, "r") as beside:
            beside.seek(0 if self._file is None else _FILE_HEAD_BYTES)  # behind its head a file is a stream
            sizes = unfolded_bytes(pa.ipc.MessageReader.open_stream(beside))
            for number in count():
                self._refuse_size(number, next(sizes, 0))
                if self._proof is not None:  # up to here, with the dictionaries before the batch
                    self._proof.feed(at, beside.tell(), byte_range(self._path, at, beside.tell()))
                at = beside.tell()
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate()
                yield from _slices(batch)

    def _refuse_size(self, number: int, size_bytes: int) -> None:
        if size_bytes > MAX_BATCH_BYTES:
            raise InputError(
                f"record batch {number} decompresses to {size_bytes} bytes; the limit is {MAX_BATCH_BYTES}: "
                "rewrite the file with smaller batches (writer.write_table(table, max_chunksize=1000))",
                where=self._name,
            )


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, _CHECKED_ROWS):
        part = batch.slice(start, _CHECKED_ROWS)
        try:
            part.validate(full=True)
        except pa.ArrowInvalid as error:
            if "UTF8" not in str(error):  # that is one row's fault, and found when its text is decoded
                raise
        yield part


def open_arrow(files: list[DataFile], every: list[DataFile], given: pa.Schema | None) -> Source:
    return open_tables(files, every, given, IpcBatches, byte_content)
