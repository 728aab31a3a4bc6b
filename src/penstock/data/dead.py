"""The dead-letter table: one line for each row that ended without a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

DEAD_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("row", pa.int64()),
        ("path", pa.list_(pa.int64())),
        ("step", pa.string()),
        ("code", pa.string()),
        ("message", pa.string()),
        ("attempts", pa.int64()),
        ("input", pa.string()),
    ]
)
_TEXTS = frozenset({"source", "step", "code", "message", "input"})


class DeadRecord(Protocol):
    """What a line is made of; `path` holds child indexes below the source row, `input` JSON of the row."""

    source: str
    row: int
    path: list[int]
    step: str
    code: str
    message: str
    attempts: int
    input: str


def dead_table(rows: Sequence[DeadRecord]) -> pa.Table:
    """The table of these dead rows, in their order. Text that is not valid Unicode is written with escapes."""
    columns = {name: [getattr(row, name) for row in rows] for name in DEAD_SCHEMA.names}
    try:
        return pa.table(columns, schema=DEAD_SCHEMA)
    except UnicodeEncodeError:
        for name in _TEXTS:
            columns[name] = [text.encode("utf-8", "backslashreplace").decode("utf-8") for text in columns[name]]
        return pa.table(columns, schema=DEAD_SCHEMA)
