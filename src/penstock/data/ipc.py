"""Arrow IPC: the file format (also Feather v2) and the stream format, told apart by their first bytes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from penstock.data.arrow_rows import storage_schema
from penstock.data.paths import DataFile
from penstock.data.proof import BLOCK_BYTES, FileProof
from penstock.data.streams import may_pass
from penstock.errors import InputError

_FILE_MAGIC = b"ARROW1"
_OLD_FEATHER_MAGIC = b"FEA1"
_CHECKED_ROWS = 4096  # rows checked, and handed on, at a time: a batch may be as large as the file


class IpcBatches:
    """The record batches of one Arrow file or stream, memory-mapped. Raises InputError."""

    def __init__(self, file: DataFile, proof: FileProof | None = None) -> None:
        self._proof = proof
        self._file: pa.RecordBatchFileReader | None = None
        self.rows: int | None = None
        try:
            self._map = pa.memory_map(str(file.path) if proof is None else proof.path, "r")
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
        return _checked(self._proven(_batches_of(self._map, self._file))), row

    def _proven(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(batches):
            if self._proof is not None:
                self._proof.feed(number, number + 1, _buffers(batch))
            yield batch

    def close(self) -> None:
        self._file = None
        self._map.close()

    def _open(self) -> pa.Schema:
        magic = self._map.read(6)
        self._map.seek(0)
        if magic.startswith(_OLD_FEATHER_MAGIC):
            raise InputError("is a Feather file of version 1; write it again with version 2")
        if magic != _FILE_MAGIC:
            return pa.ipc.open_stream(self._map).schema
        self._file = pa.ipc.open_file(self._map)
        self.rows = self._file.count_rows()
        return self._file.schema


def ipc_content(path: str, begin: int, end: int | None) -> Iterator[bytes | memoryview]:
    """The buffers of record batches `begin` to below `end`."""
    with pa.memory_map(path, "r") as mapped:
        magic = mapped.read(6)
        mapped.seek(0)
        file = pa.ipc.open_file(mapped) if magic == _FILE_MAGIC else None
        for batch in islice(_batches_of(mapped, file), begin, end):
            yield from _buffers(batch)


def _batches_of(mapped: pa.MemoryMappedFile, file: pa.RecordBatchFileReader | None) -> Iterator[pa.RecordBatch]:
    if file is not None:
        return map(file.get_batch, range(file.num_record_batches))
    mapped.seek(0)
    return iter(pa.ipc.open_stream(mapped))


def _buffers(batch: pa.RecordBatch) -> Iterator[bytes | memoryview]:
    yield batch.num_rows.to_bytes(8, "little")
    for column in batch.columns:
        yield from _buffers_of(column)


def _buffers_of(column: pa.Array) -> Iterator[memoryview]:
    for dictionary in _dictionaries(column):  # `buffers` has their indices alone
        yield from _buffers_of(dictionary)
    for buffer in column.buffers():
        if buffer is not None:
            view = memoryview(buffer)
            for start in range(0, len(view), BLOCK_BYTES):  # bounded, so that other threads get their turn
                yield view[start : start + BLOCK_BYTES]


def _dictionaries(column: pa.Array) -> Iterator[pa.Array]:
    if isinstance(column, pa.DictionaryArray):
        yield column.dictionary
    elif isinstance(column, pa.StructArray):
        for number in range(column.type.num_fields):
            yield from _dictionaries(column.field(number))
    elif isinstance(column, pa.MapArray):
        yield from _dictionaries(column.keys)
        yield from _dictionaries(column.items)
    elif isinstance(column, (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray)):
        yield from _dictionaries(column.values)


def _checked(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches in slices, each checked in full: a damaged file must not make Arrow read past its buffers."""
    for batch in batches:
        batch.validate()
        for start in range(0, batch.num_rows, _CHECKED_ROWS):
            part = batch.slice(start, _CHECKED_ROWS)
            try:
                part.validate(full=True)
            except pa.ArrowInvalid as error:
                if "UTF8" not in str(error):  # that is one row's fault, and found when its text is decoded
                    raise
            yield part
