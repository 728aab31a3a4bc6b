"""Part files: one table, one file, durable when `write` returns."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import pyarrow as pa

from penstock.data.arrow_rows import column_values
from penstock.data.base import PartWriter, Row
from penstock.errors import ConfigError
from penstock.formats import FORMATS, WRITTEN_FORMATS, format_function

_GROUP_ROWS, _GROUP_BYTES = 100_000, 64 << 20  # of a joined part that are written at once
_ROWS_PER_BATCH = 4096  # converted to Python at once when writing JSON


class FormatWriter:
    """Writes parts of one format. A file that failed halfway is the caller's to remove."""

    def __init__(
        self,
        suffix: str,
        encode: Callable[[pa.Table, BinaryIO], None],
        merge: Callable[[Path, Insertion, BinaryIO], None],
        join: Callable[[Sequence[Path], BinaryIO], None],
    ) -> None:
        self.suffix = suffix
        self._encode = encode
        self._merge = merge
        self._join = join

    def write(self, path: Path, table: pa.Table) -> int:
        return _durable(path, partial(self._encode, table))

    def write_with(self, path: Path, part: Path, table: pa.Table, order: Sequence[int]) -> int:
        return _durable(path, partial(self._merge, part, Insertion(table, order)))

    def join(self, path: Path, parts: Sequence[Path]) -> int:
        return _durable(path, partial(self._join, parts))


class Insertion(NamedTuple):
    """Rows that go into a part, and the order of all rows then."""

    table: pa.Table
    order: Sequence[int]

    def into(self, old: pa.Table) -> pa.Table:
        return pa.concat_tables([old, self.table.cast(old.schema)]).take(pa.array(self.order, pa.int64()))


def _durable(path: Path, write: Callable[[BinaryIO], None]) -> int:
    with open(path, "wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
        return stream.tell()


def writer_for(format: str) -> PartWriter:
    """The writer of a format's parts. Raises ConfigError."""
    if format not in WRITTEN_FORMATS:
        raise ConfigError(f"the sink format {format!r} is not known; one of: {', '.join(WRITTEN_FORMATS)}")
    writer: PartWriter = format_function(FORMATS[format].writer)()
    return writer


def parquet_writer() -> PartWriter:
    """Compressed with zstd."""
    return FormatWriter(".parquet", _write_parquet, _merge_parquet, _join_parquet)


def jsonl_writer() -> PartWriter:
    return FormatWriter(".jsonl", _write_jsonl, _merge_jsonl, _join_jsonl)


def arrow_writer() -> PartWriter:
    """The IPC file format, not compressed, so that it maps into memory."""
    return FormatWriter(".arrow", _write_arrow, _merge_arrow, _join_arrow)


def _write_parquet(table: pa.Table, stream: BinaryIO) -> None:
    import pyarrow.parquet as pq

    try:
        pq.write_table(table, stream, compression="zstd")
    except pa.ArrowNotImplementedError as error:
        raise ConfigError(f"Parquet can't hold this table: {error}; use `format: arrow` in the sink") from None


def _merge_parquet(part: Path, rows: Insertion, stream: BinaryIO) -> None:
    _write_parquet(rows.into(_read_parquet(part)), stream)


def _read_parquet(part: Path) -> pa.Table:
    import pyarrow.parquet as pq

    with part.open("rb") as file:  # a path of Arrow has to be UTF-8
        parquet = pq.ParquetFile(file)  # read in this thread, as dead rows are (ledger/dead_rows.py)
        return pa.Table.from_batches(parquet.iter_batches(use_threads=False), parquet.schema_arrow)


def _join_parquet(parts: Sequence[Path], stream: BinaryIO) -> None:
    import pyarrow.parquet as pq

    first, groups = _peek(_grouped(chain.from_iterable(map(_row_groups, parts))))
    with pq.ParquetWriter(stream, first.schema, compression="zstd") as writer:
        for table in groups:
            writer.write_table(table)


def _row_groups(part: Path) -> Iterator[pa.Table]:
    """The rows of a part as they were written, a group at a time: one that was joined before may be small as a file,
    and much larger than memory once it is decoded."""
    import pyarrow.parquet as pq

    with part.open("rb") as stream, pq.ParquetFile(stream) as file:  # a path of Arrow has to be UTF-8
        for group in range(file.metadata.num_row_groups):
            yield file.read_row_group(group, use_threads=False)
        if not file.metadata.num_row_groups:
            yield file.schema_arrow.empty_table()


def _batches(part: Path) -> Iterator[pa.Table]:
    with part.open("rb") as stream, pa.ipc.open_file(stream) as reader:
        for index in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(index)])
        if not reader.num_record_batches:
            yield reader.schema.empty_table()


def _join_arrow(parts: Sequence[Path], stream: BinaryIO) -> None:
    first, tables = _peek(_grouped(chain.from_iterable(map(_batches, parts))))
    with pa.ipc.new_file(stream, first.schema) as writer:
        for table in tables:
            writer.write_table(table, max_chunksize=65_536)


def _read_arrow(part: Path) -> pa.Table:
    with part.open("rb") as file, pa.ipc.open_file(file) as reader:
        return reader.read_all()


def _join_jsonl(parts: Sequence[Path], stream: BinaryIO) -> None:
    for part in parts:
        with open(part, "rb") as source:
            shutil.copyfileobj(source, stream, 1 << 20)


def _grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables that are large enough to read fast, and small enough to be held."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(each.num_rows for each in held) >= _GROUP_ROWS or sum(each.nbytes for each in held) >= _GROUP_BYTES:
            yield pa.concat_tables(held).combine_chunks()
            held = []
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _peek(tables: Iterator[pa.Table]) -> tuple[pa.Table, Iterator[pa.Table]]:
    """The first table, and all of them."""
    first = next(tables)
    return first, chain([first], tables)


def _write_arrow(table: pa.Table, stream: BinaryIO) -> None:
    with pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=65_536)


def _merge_arrow(part: Path, rows: Insertion, stream: BinaryIO) -> None:
    _write_arrow(rows.into(_read_arrow(part)), stream)


def _merge_jsonl(part: Path, rows: Insertion, stream: BinaryIO) -> None:
    """Lines stay as they are: JSON does not tell their types."""
    new = io.BytesIO()
    _write_jsonl(rows.table, new)
    lines = [*part.read_bytes().splitlines(keepends=True), *new.getvalue().splitlines(keepends=True)]
    stream.writelines(lines[index] for index in rows.order)


def _write_jsonl(table: pa.Table, stream: BinaryIO) -> None:
    encoder = msgspec.json.Encoder(enc_hook=str)
    for batch in table.to_batches(max_chunksize=_ROWS_PER_BATCH):
        stream.write(encoder.encode_lines(_json_rows(batch)))


def _json_rows(batch: pa.RecordBatch) -> list[Row]:
    """Rows as JSON has them: maps are objects, NaN is null, times ISO 8601, bytes base64, decimals strings."""
    names = batch.schema.names
    columns = [column_values(array, maps_as_objects=True) for array in batch.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
