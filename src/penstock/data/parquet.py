"""Parquet files: schema and counts from the footer, rows in small record batches, jumps by row group."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.data.arrow_rows import storage_schema
from penstock.data.base import Source
from penstock.data.decoded import longest_named
from penstock.data.limits import MAX_ROWS_PER_FILE_BYTE
from penstock.data.passing import may_pass
from penstock.data.paths import DataFile
from penstock.data.proof import FileProof, byte_range
from penstock.data.tables import open_tables
from penstock.errors import InputError

_BATCH_ROWS = 1024  # rows handed on at once: bounds memory whatever the size of a row group
_DECODED_ROWS = 64  # rows that Arrow decodes at once: as fast as many, and a few large ones do no harm
_BUFFER_BYTES = 1 << 20  # of each column; without it Arrow reads the column of a whole row group
_BATCH_BYTES = 16 << 20  # fewer rows where they are large
_LONG_TEXT_BYTES = 64 << 10  # texts up to here do no harm, however often a dictionary names them
_TAIL_BYTES = 8  # the footer's length and the magic


class ParquetBatches:
    """The record batches of one Parquet file. Opening it reads the footer. Raises InputError."""

    def __init__(self, file: DataFile, proof: FileProof | None = None) -> None:
        self._proof = proof
        path = file.path if proof is None else proof.path
        try:
            self._path = path
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(_no_parquet(file, error), where=file.name, passing=may_pass(error)) from None
        metadata = self._file.metadata
        self._group_rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
        self.rows: int | None = sum(self._group_rows)
        if min(self._group_rows, default=0) < 0 or self.rows > MAX_ROWS_PER_FILE_BYTE * file.size_bytes:
            self.close()
            raise InputError(
                f"its footer claims {self.rows} rows in {file.size_bytes} bytes; the file is corrupt or malicious",
                where=file.name,
            )
        try:
            self.schema = storage_schema(self._file.schema_arrow)
        except InputError as error:
            self.close()
            raise InputError(error.message, where=file.name) from None

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
            rows = self._rows_at_once(index)
            batches = self._file.iter_batches(rows, row_groups=[index], use_threads=False)
            yield from _grouped(batches) if rows > 1 else batches

    def _rows_at_once(self, group: int) -> int:
        """How many rows of a group Arrow may decode at once, by what its columns take and by the longest texts of its
        dictionaries: the index of such a text takes next to nothing."""
        metadata = self._file.metadata.row_group(group)
        rows = max(metadata.num_rows, 1)
        columns = [metadata.column(index) for index in range(metadata.num_columns)]
        mean_bytes = (
            sum(
                max(column.total_uncompressed_size, 8 * column.num_values if column.num_values > rows else 0)
                for column in columns
            )
            // rows
        )
        named = [
            column
            for column in columns
            if column.physical_type == "BYTE_ARRAY"
            and column.has_dictionary_page
            and column.total_uncompressed_size > _LONG_TEXT_BYTES
        ]
        longest_bytes = (
            self._longest_in_dictionaries(group, [column.path_in_schema for column in named]) if named else 0
        )
        repeated = max((column.num_values // rows for column in named), default=0) + 1
        return max(
            1, min(_DECODED_ROWS, _BATCH_BYTES // (mean_bytes + 1), _BATCH_BYTES // (longest_bytes * repeated + 1))
        )

    def _longest_in_dictionaries(self, group: int, paths: list[str]) -> int:
        """The first row of a group, with its dictionaries as they are."""
        reader = pq.ParquetFile(self._path, metadata=self._file.metadata, read_dictionary=paths, pre_buffer=False)
        try:
            first = next(reader.iter_batches(1, row_groups=[group], columns=paths, use_threads=False), None)
            return 0 if first is None else sum(map(longest_named, first.columns))
        finally:
            reader.close(force=True)


def _grouped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches that are worth a read."""
    held: list[pa.RecordBatch] = []
    rows = size_bytes = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        size_bytes += batch.nbytes
        if rows >= _BATCH_ROWS or size_bytes >= _BATCH_BYTES:
            yield pa.concat_batches(held)
            held, rows, size_bytes = [], 0, 0
    if held:
        yield pa.concat_batches(held)


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
        return "is empty, which is not a valid Parquet file; remove or rewrite it"
    text = str(error)
    if "encrypt" in text.lower():
        return "is an encrypted Parquet file; decrypt it first"
    return f"is not a Parquet file: {text.splitlines()[0] if text else type(error).__name__}"


def open_parquet(files: list[DataFile], every: list[DataFile], given: pa.Schema | None) -> Source:
    """Files are hashed by row groups."""
    return open_tables(files, every, given, ParquetBatches, parquet_content)
