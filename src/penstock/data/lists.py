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
from penstock.data.plain import plain_row
from penstock.data.proof import ReadProof
from penstock.errors import InputError

_NAME = "list"


class ListSource:
    """A Source over a list of dicts. The rows given are not changed, and must not be while the source is read."""

    def __init__(self, rows: list[Row]) -> None:
        for index, row in enumerate(rows):
            if not isinstance(row, dict) or not all(isinstance(name, str) for name in row):
                raise InputError(
                    f"row {index} is not a dict of column names to values: {_shown(row).decode()[:80]!r}", where=_NAME
                )
        self._rows = rows
        self.proof: ReadProof | None = None  # its identity has a hash of all rows
        self.schema = infer_schema(row for row, fault in map(plain_row, rows[:SAMPLE_ROWS]) if fault is None)
        self.total_rows: int | None = len(rows)
        self._checker = RowChecker(self.schema)

    def read(self, start: int, skip: Callable[[int], bool] | None, max_rows: int) -> Chunk | None:
        end = min(start + max_rows, len(self._rows))
        if start >= end:
            return None
        positions = [position for position in range(start, end) if skip is None or not skip(position)]
        found = [plain_row(self._rows[position]) for position in positions]
        rows = [row for row, _ in found]
        sizes = [_size_bytes(row) for row in rows]
        faults = self._checker.faults(rows) | {index: fault for index, (_, fault) in enumerate(found) if fault}
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
            plain, fault = plain_row(row)
            try:
                digest.update(encode(plain) if fault is None else repr(fault).encode())
            except Exception:  # an integer of more than 64 bits, an object that can't be shown
                digest.update(_shown(plain))
        return {"format": _NAME, "rows": len(self._rows), "hash": digest.hexdigest()}

    def close(self) -> None:
        pass

    def _unreadable(self, position: int, fault: Fault) -> Unreadable:
        text = _as_json(self._rows[position])[:INPUT_CHARS]
        return Unreadable(position, _NAME, position, fault[0], f"row {position}: {fault[1]}", text)


def _as_json(row: Row) -> str:
    """The row as text; values whose methods raise are shown as a placeholder."""
    try:
        return msgspec.json.encode(row, enc_hook=repr).decode("utf-8")
    except Exception:
        return msgspec.json.encode(
            {_shown(name).decode(): _shown(value).decode() for name, value in row.items()}
        ).decode()


def _shown(value: Any) -> bytes:
    try:
        text = value if type(value) is str else repr(value)
    except Exception:
        text = f"a {type(value).__name__} that can't be shown"
    return text.encode("utf-8", "backslashreplace")


def _size_bytes(row: Row) -> int:
    texts = sum(len(value) for value in row.values() if isinstance(value, (str, bytes, list, dict)))
    return texts + ROW_BYTES + COLUMN_BYTES * len(row)
