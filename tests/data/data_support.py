"""Helpers of the data tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.data.base import Chunk, Source, Unreadable


class Everything:
    """All that a source gave: rows by position, unreadable records, and where it ended."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.unreadable: dict[int, Unreadable] = {}
        self.end = 0

    @property
    def codes(self) -> list[str]:
        return [record.code for record in self.unreadable.values()]

    @property
    def values(self) -> list[dict[str, Any]]:
        return list(self.rows.values())


def read_all(
    source: Source, *, start: int = 0, max_rows: int = 7, skip: Callable[[int], bool] | None = None
) -> Everything:
    """Read a source to its end, checking what every chunk promises."""
    found = Everything()
    found.end = start
    while (chunk := source.read(found.end, skip, max_rows)) is not None:
        check_chunk(chunk, found.end, max_rows)
        found.rows.update(zip(chunk.positions, chunk.rows, strict=True))
        found.unreadable.update({record.position: record for record in chunk.unreadable})
        found.end = chunk.next_position
    source.close()
    return found


def check_chunk(chunk: Chunk, start: int, max_rows: int) -> None:
    positions = [*chunk.positions, *(record.position for record in chunk.unreadable)]
    assert len(chunk.positions) == len(chunk.rows) == len(chunk.sizes_bytes)
    assert len(positions) <= max_rows
    assert len(set(positions)) == len(positions)
    assert chunk.positions == sorted(chunk.positions)
    assert all(start <= position < chunk.next_position for position in positions)
    assert chunk.next_position > start
    assert all(size > 0 for size in chunk.sizes_bytes)
