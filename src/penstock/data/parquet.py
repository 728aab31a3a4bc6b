"""Parquet files: schema and counts from the footer, rows in small record batches, jumps by row group."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.data.arrow_rows import storage_schema
from penstock.data.limits import MAX_ROWS_PER_FILE_BYTE
from penstock.data.paths import DataFile
from penstock.data.proof import FileProof, byte_range
from penstock.data.streams import may_pass
from penstock.errors import InputError

_BATCH_ROWS = 1024  # rows decoded at once: bounds memory whatever the size of a row group
_BUFFER_BYTES = 1 << 20  # of each column; without it Arrow reads the column of a whole row group
_TAIL_BYTES = 8  # the footer's length and the magic
_BATCH_BYTES = 16 << 20  # fewer rows where the footer says that they are large


class ParquetBatches:
    """The record batches of one Parquet file. Opening it reads the footer. Raises InputError."""

    def __init__(self, file: DataFile, proof: FileProof | None = None) -> None:
        self._proof = proof
        path = file.path if proof is None else proof.path
        try:
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(_no_parquet(file, error), where=file.name, passing=may_pass(error)) from None
        metadata = self._file.metadata
        self._group_rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
        self.rows: int | None = sum(self._group_rows)
        if min(self._group_rows, default=0) < 0 or self.rows > MAX_ROWS_PER_FILE_BYTE * file.size_bytes:
            self.close()
            raise InputError(
                f"its footer claims {self.rows} rows in {file.size_bytes} bytes; the file is corrupt, or made to harm",
                where=file.name,
            )
        try:
            self.schema = storage_schema(self._file.schema_arrow)
        except InputError as error:
            self.close()
            raise InputError(error.message, where=file.name) from None
        self._batch_rows = self._rows_per_batch()

    def from_row(self, row: int) -> tuple[Iterator[pa.RecordBatch], int]:
        group = 0
        while group < len(self._group_rows) and row >= self._group_rows[group]:
            row -= self._group_rows[group]
            group += 1
        return self._batches(group), row

    def close(self) -> None:
        self._file.close(force=True)

    def _batches(self, group: int) -> Iterator[pa.RecordBatch]:
        for index in range(group, len(self._group_rows)):
            if self._proof is not None:
                self._proof.feed(index, index + 1, parquet_content(self._proof.path, index, index + 1))
            # A group of its own call, so that a batch never spans two groups and nothing is kept between them.
            yield from self._file.iter_batches(self._batch_rows, row_groups=[index], use_threads=False)

    def _rows_per_batch(self) -> int:
        metadata = self._file.metadata
        size_bytes = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
        mean_bytes = size_bytes // max(self.rows or 0, 1) + 1
        return max(1, min(_BATCH_ROWS, _BATCH_BYTES // mean_bytes))


def parquet_content(path: str, begin: int, end: int | None) -> Iterator[bytes | memoryview]:
    """The bytes of row groups `begin` to below `end`, as they lie in the file; those of the footer come first."""
    size_bytes = os.stat(path).st_size
    metadata = pq.read_metadata(path)
    if begin == 0:
        yield from byte_range(path, max(0, size_bytes - metadata.serialized_size - _TAIL_BYTES), size_bytes)
    for index in range(begin, metadata.num_row_groups if end is None else end):
        group = metadata.row_group(index)
        for number in range(group.num_columns):
            column = group.column(number)
            first = column.data_page_offset
            if column.has_dictionary_page and column.dictionary_page_offset is not None:
                first = min(first, column.dictionary_page_offset)
            yield from byte_range(path, first, first + column.total_compressed_size)


def _no_parquet(file: DataFile, error: Exception) -> str:
    if file.size_bytes == 0:
        return "is empty, which is no Parquet file; remove it, or write it again"
    text = str(error)
    if "encrypt" in text.lower():
        return "is an encrypted Parquet file; decrypt it first"
    return f"is not a Parquet file: {text.splitlines()[0] if text else type(error).__name__}"
