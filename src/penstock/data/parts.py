"""Part files: one table, one file, durable when `write` returns."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec
import pyarrow as pa

from penstock.data.arrow_rows import column_values
from penstock.data.base import PartWriter, Row
from penstock.errors import ConfigError

_ROWS_PER_BATCH = 4096  # converted to Python at once when writing JSON


class FormatWriter:
    """Writes parts of one format. A file that failed halfway is the caller's to remove."""

    def __init__(self, suffix: str, encode: Callable[[pa.Table, BinaryIO], None]) -> None:
        self.suffix = suffix
        self._encode = encode

    def write(self, path: Path, table: pa.Table) -> int:
        with open(path, "wb") as stream:
            self._encode(table, stream)
            stream.flush()
            os.fsync(stream.fileno())
            return stream.tell()


def writer_for(format: str) -> PartWriter:
    """The writer of `parquet` (zstd), `jsonl` or `arrow` (IPC file, not compressed, so that it maps into memory)."""
    writers: dict[str, tuple[str, Callable[[pa.Table, BinaryIO], None]]] = {
        "parquet": (".parquet", _write_parquet),
        "jsonl": (".jsonl", _write_jsonl),
        "arrow": (".arrow", _write_arrow),
    }
    if format not in writers:
        raise ConfigError(f"the sink format {format!r} is not known; one of: {', '.join(writers)}")
    return FormatWriter(*writers[format])


def _write_parquet(table: pa.Table, stream: BinaryIO) -> None:
    import pyarrow.parquet as pq

    try:
        pq.write_table(table, stream, compression="zstd")
    except pa.ArrowNotImplementedError as error:
        raise ConfigError(f"Parquet can't hold this table: {error}; use `format: arrow` in the sink") from None


def _write_arrow(table: pa.Table, stream: BinaryIO) -> None:
    with pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=65_536)


def _write_jsonl(table: pa.Table, stream: BinaryIO) -> None:
    encoder = msgspec.json.Encoder(enc_hook=str)
    for batch in table.to_batches(max_chunksize=_ROWS_PER_BATCH):
        stream.write(encoder.encode_lines(_json_rows(batch)))


def _json_rows(batch: pa.RecordBatch) -> list[Row]:
    """Rows as JSON has them: maps are objects, NaN is null, times ISO 8601, bytes base64, decimals strings."""
    names = batch.schema.names
    columns = [column_values(array, maps_as_objects=True) for array in batch.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
