"""Rows given in Python as a source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from penstock.data.base import Chunk, Row, Unreadable
from penstock.data.checks import Fault, RowChecker
from penstock.data.infer import infer_schema
from penstock.data.limits import COLUMN_BYTES, INPUT_CHARS, ROW_BYTES, SAMPLE_ROWS
from penstock.data.proof import ReadProof
from penstock.errors import InputError

_NAME = "list"


class ListSource:
    """A Source over a list of dicts. The rows given are not changed, and must not be while the source is read."""

    def __init__(self, rows: list[Row]) -> None:
        for index, row in enumerate(rows):
            if not isinstance(row, dict) or not all(isinstance(name, str) for name in row):
                raise InputError(f"row {index} is no dict of column names to values: {str(row)[:80]!r}", where=_NAME)
        self._rows = rows
        self.proof: ReadProof | None = None  # its identity has a hash of all rows
        self.schema = infer_schema(rows[:SAMPLE_ROWS])
        self.total_rows: int | None = len(rows)
        self._checker = RowChecker(self.schema)

    def read(self, start: int, skip: Callable[[int], bool] | None, max_rows: int) -> Chunk | None:
        end = min(start + max_rows, len(self._rows))
        if start >= end:
            return None
        positions = [position for position in range(start, end) if skip is None or not skip(position)]
        rows = [dict(self._rows[position]) for position in positions]
        sizes = [_size_bytes(row) for row in rows]
        faults = self._checker.faults(rows)
        if not faults:
            return Chunk(positions, rows, sizes, [], end)
        unreadable = [self._unreadable(positions[index], fault) for index, fault in sorted(faults.items())]
        kept = [index for index in range(len(rows)) if index not in faults]
        return Chunk(
            [positions[index] for index in kept],
            [rows[index] for index in kept],
            [sizes[index] for index in kept],
            unreadable,
            end,
        )

    def locate(self, position: int) -> tuple[str, int]:
        return _NAME, position

    def estimate_rows(self) -> int | None:
        return self.total_rows

    def identity(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """How many rows, and a hash of all their values."""
        digest = hashlib.blake2b(digest_size=16)
        encode = msgspec.msgpack.Encoder(enc_hook=repr).encode
        for row in self._rows:
            try:
                digest.update(encode(row))
            except (TypeError, ValueError, OverflowError, RecursionError):  # an integer of more than 64 bits
                digest.update(repr(row).encode("utf-8", "backslashreplace"))
        return {"format": _NAME, "rows": len(self._rows), "hash": digest.hexdigest()}

    def close(self) -> None:
        pass

    def _unreadable(self, position: int, fault: Fault) -> Unreadable:
        text = _as_json(self._rows[position])[:INPUT_CHARS]
        return Unreadable(position, _NAME, position, fault[0], f"row {position}: {fault[1]}", text)


def _as_json(row: Row) -> str:
    try:
        return msgspec.json.encode(row, enc_hook=repr).decode("utf-8")
    except (TypeError, ValueError, OverflowError, RecursionError):
        return repr(row).encode("utf-8", "backslashreplace").decode("utf-8")


def _size_bytes(row: Row) -> int:
    texts = sum(len(value) for value in row.values() if isinstance(value, (str, bytes, list, dict)))
    return texts + ROW_BYTES + COLUMN_BYTES * len(row)
