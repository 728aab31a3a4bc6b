"""Parquet and Arrow files as readers of rows: a sequence of record batches, with jumps where the file allows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import pyarrow as pa

from penstock.data.arrow_rows import batch_rows
from penstock.data.base import Chunk, Source, Unreadable
from penstock.data.decoded import fitting_rows
from penstock.data.files import FilesSource
from penstock.data.limits import MAX_COLUMNS, MAX_LINE_BYTES
from penstock.data.passing import may_pass
from penstock.data.paths import DataFile
from penstock.data.proof import Content, FileProof
from penstock.data.sample import refuse_columns_of
from penstock.data.sizes import shown_names
from penstock.errors import ConfigError, InputError


class Batches(Protocol):
    """The record batches of one file.

    from_row  batches from the group that holds a row on, and how many rows of the first batch come before it
    """

    schema: pa.Schema
    rows: int | None

    def from_row(self, row: int) -> tuple[Iterator[pa.RecordBatch], int]: ...

    def close(self) -> None: ...


class TableReader:
    """Reads one file of record batches. `base` is the position of its first row, `schema` that of the source."""

    def __init__(
        self, file: DataFile, base: int, schema: pa.Schema, batches: Batches, proof: FileProof | None = None
    ) -> None:
        self._proof = proof
        self._file = file
        self._base = base
        self._schema = schema
        self._batches = batches
        self._row = 0  # ordinal of the next row in this file
        self._iterator: Iterator[pa.RecordBatch] | None = None
        self._batch: pa.RecordBatch | None = None
        self._next = 0  # of the current batch
        self._size_bytes = 0  # of the rows that were taken from it last, once decoded

    def read(self, skip: Callable[[int], bool] | None, max_rows: int) -> Chunk | None:
        if self._proof is not None:
            self._proof.refuse_shorter()  # what is memory-mapped and gone ends the process when it is touched
        batch = self._slice(max_rows)
        if batch is None:
            return None
        first = self._base + self._row
        self._row += batch.num_rows
        if self._size_bytes > MAX_LINE_BYTES:  # then it is one row
            return self._too_large(first, skip)
        wanted = [index for index in range(batch.num_rows) if skip is None or not skip(first + index)]
        if not wanted:
            return Chunk([], [], [], [], first + batch.num_rows)
        return self._chunk(batch, first, wanted)

    def pass_over(self, records: int) -> int:
        total = self._batches.rows
        if total is not None:
            passed = min(records, total - self._row)
            self._row += passed
            self._iterator = self._batch = None
            return passed
        passed = 0
        while passed < records:
            batch = self._slice(records - passed)
            if batch is None:
                break
            passed += batch.num_rows
            self._row += batch.num_rows
        return passed

    def consumed_bytes(self) -> int:
        return 0  # such files tell their rows

    def close(self) -> None:
        self._iterator = self._batch = None
        self._batches.close()

    def _slice(self, max_rows: int) -> pa.RecordBatch | None:
        """The next rows of the current batch, or of the next one that is not empty; None at the end."""
        while self._batch is None or self._next >= self._batch.num_rows:
            try:
                self._step()
            except StopIteration:
                return None
            except (pa.ArrowException, OSError, ValueError, IndexError) as error:
                if self._proof is not None:
                    self._proof.refuse_shorter()
                if may_pass(error):
                    message = f"read failed after row {self._row}: {error}"
                    raise InputError(message, where=self._file.name, passing=True) from None
                raise InputError(
                    f"is damaged at or after row {self._row}: {error}; rewrite the file", where=self._file.name
                ) from None
        try:
            found, self._size_bytes = fitting_rows(self._batch, self._next, max_rows)
        except (pa.ArrowException, ValueError, IndexError) as error:
            raise InputError(f"is damaged after row {self._row}: {error}", where=self._file.name) from None
        self._next += found.num_rows
        return found

    def _step(self) -> None:
        self._next = 0
        if self._iterator is not None:
            self._batch = next(self._iterator)
            return
        self._iterator, before = self._batches.from_row(self._row)
        while True:
            self._batch = next(self._iterator)
            if before < self._batch.num_rows:
                self._next = before
                return
            before -= self._batch.num_rows

    def _chunk(self, batch: pa.RecordBatch, first: int, wanted: list[int]) -> Chunk:
        try:
            rows, sizes_bytes, faults = batch_rows(batch, self._schema, self._size_bytes)
        except (pa.ArrowException, ValueError, IndexError) as error:
            raise InputError(f"is damaged before row {self._row}: {error}", where=self._file.name) from None
        kept = [index for index in wanted if index not in faults] if faults else wanted
        return Chunk(
            [first + index for index in kept],
            rows if len(kept) == len(rows) else [rows[index] for index in kept],
            sizes_bytes[: len(kept)],
            [self._unreadable(first + index, *faults[index]) for index in wanted if index in faults],
            first + batch.num_rows,
        )

    def _too_large(self, position: int, skip: Callable[[int], bool] | None) -> Chunk:
        if skip is not None and skip(position):
            return Chunk([], [], [], [], position + 1)
        message = f"about {self._size_bytes} bytes; the limit of one row is {MAX_LINE_BYTES}"
        return Chunk([], [], [], [self._unreadable(position, "line_too_long", message)], position + 1)

    def _unreadable(self, position: int, code: str, message: str) -> Unreadable:
        row = position - self._base
        return Unreadable(position, self._file.name, row, code, f"row {row}: {message}", "")


def open_tables(
    files: list[DataFile],
    every: list[DataFile],
    given: pa.Schema | None,
    open_batches: Callable[[DataFile, FileProof | None], Batches],
    content: Content,
) -> Source:
    """A source of files that hold typed columns. content: how they are hashed."""
    schema = pa.schema([])
    rows: list[int] = []
    counted = True
    for file in files:
        batches = open_batches(file, None)
        schema = _joined(schema, batches.schema, file)
        counted = counted and batches.rows is not None
        rows.append(batches.rows or 0)
        batches.close()
    _check_given_tables(given, schema)
    return FilesSource(
        files,
        schema,
        lambda file, base, proof: TableReader(file, base, schema, open_batches(file, proof), proof),
        rows=rows if counted else None,
        every=every,
        content=content,
    )


def _joined(schema: pa.Schema, more: pa.Schema, file: DataFile) -> pa.Schema:
    """Columns of both; a column has one type in all files, except that one without values fits any."""
    if len(more.names) > MAX_COLUMNS:
        refuse_columns_of(more.names, file)
    if not schema.names or schema.equals(more):
        return more
    for field in more:
        if field.name not in schema.names:
            schema = schema.append(field)
            continue
        index = schema.get_field_index(field.name)
        known = schema.field(index).type
        if known == field.type or field.type == pa.null():
            continue
        if known != pa.null():
            raise InputError(
                f"column {field.name!r} is {field.type} here and {known} in the files before; write the files with "
                "one type",
                where=file.name,
            )
        schema = schema.set(index, field)
    return schema


def _check_given_tables(given: pa.Schema | None, schema: pa.Schema) -> None:
    for field in given or ():
        if field.name not in schema.names:
            raise ConfigError(f"schema: no column {field.name!r} in the files; they have {shown_names(schema.names)}")
        found = schema.field(field.name).type
        if found != field.type:
            raise ConfigError(f"schema: column {field.name!r} is {found} in the files, not {field.type}")
