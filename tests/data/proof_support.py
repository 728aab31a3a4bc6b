"""Rows as files of every format, for tests of what was read."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

# A megabyte and more, which hardly compresses: several blocks of every format.
MORE = [{"id": f"{number:04}", "text": random.Random(number).randbytes(700).hex()} for number in range(3600)]
ROWS = MORE[:1200]


def lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_of(rows: Sequence[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["id", "text"])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet_of(rows: Sequence[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), out, row_group_size=70, use_dictionary=False, compression="none")
    return out.getvalue()


def arrow_of(rows: Sequence[dict[str, Any]], *, stream: bool = False) -> bytes:
    table, out = pa.Table.from_pylist(list(rows)), io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=70)
    return out.getvalue()


# suffix -> the bytes of a file with these rows; equal numbers of rows of equal length give files of one size
KINDS: dict[str, Callable[[Sequence[dict[str, Any]]], bytes]] = {
    "jsonl": lines,
    "csv": csv_of,
    "parquet": parquet_of,
    "arrow": arrow_of,
    "arrows": lambda rows: arrow_of(rows, stream=True),
}
COMPRESSED: dict[str, Callable[[Sequence[dict[str, Any]]], bytes]] = {
    "jsonl.gz": lambda rows: gzip.compress(lines(rows), mtime=0),
    "jsonl.zst": lambda rows: zstandard.compress(lines(rows)),
}
