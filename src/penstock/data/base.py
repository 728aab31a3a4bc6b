"""The interfaces of sources and part writers.

A row is a dict of column name to Python value. Its position is its ordinal in the whole source, counting files in
order and lines (or records) within; blank lines have none, unreadable lines have one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from penstock.data.proof import ReadProof

Row = dict[str, Any]


class Unreadable(msgspec.Struct, frozen=True):
    """A record that can't become a row. `code` is one of errors.DEAD_CODES; `message` has the line.

    origin: its position in the first source, where this one has some rows of that; -1: `position`
    """

    position: int
    source: str  # the file, or "list" for rows given in Python
    row: int  # ordinal in that file, from 0
    code: str
    message: str
    input: str  # what could be read of it, as text, at most 4,096 characters
    origin: int = -1


class Origin(msgspec.Struct, frozen=True):
    """Where a row of a later phase came from: its source row, its path below it, and the file with its ordinal.

    source_dead: a row of the same source row died in a phase before; the source row counts as dead already
    """

    position: int
    path: tuple[int, ...]
    source: str
    row: int
    source_dead: bool = False


class RowFamily(msgspec.Struct):
    """What an earlier phase has left of one source row, where that is several rows. All lists are of one length."""

    position: int
    rows: list[Row]
    sizes_bytes: list[int]
    origins: list[Origin]


class Chunk(msgspec.Struct):
    """Consecutive records of a source. positions, rows and sizes_bytes are of one length; unreadable ones are apart.

    next_position   the position after the last record of this chunk
    origins         where rows that were carried over from an earlier phase came from; else None
    families        positions of which an earlier phase has left several rows; they are in none of the other lists
    """

    positions: list[int]
    rows: list[Row]
    sizes_bytes: list[int]  # rough memory of each row: what the windows count
    unreadable: list[Unreadable]
    next_position: int
    origins: list[Origin] | None = None
    families: list[RowFamily] = []


class Source(Protocol):
    """Rows in a fixed order. Opening it reads the schema (first thousand rows) and nothing else."""

    schema: pa.Schema
    total_rows: int | None  # where known without reading (Parquet, Arrow)
    proof: ReadProof | None  # evidence of what was read; None where the rows can't have changed

    def read(self, start: int, skip: Callable[[int], bool] | None, max_rows: int) -> Chunk | None:
        """The next at most `max_rows` records from position `start` on, or None at the end.

        Reading on from where the last call ended is cheap; another `start` seeks (lines before it are counted, not
        parsed), and so does the first call after an InputError. `skip(position)` true: the record is passed over
        without being parsed.
        """
        ...

    def locate(self, position: int) -> tuple[str, int]:
        """(file, ordinal in that file) of a position that was read already."""
        ...

    def estimate_rows(self) -> int | None:
        """About how many rows the whole source has, judged by the share of its bytes that was read; None at first."""
        ...

    def identity(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What makes this input this input: files with names, sizes and (for lists) a hash. Plain JSON data.
        known: what it was when the run began; a source may tell that again where it continues that one."""
        ...

    def close(self) -> None: ...


class PartWriter(Protocol):
    """Writes one table as one complete part file. Formats: parquet, jsonl, arrow."""

    suffix: str

    def write(self, path: Path, table: pa.Table) -> int:
        """Write `table` to `path`, flush and fsync it; return its size in bytes. Raises OSError."""
        ...

    def write_with(self, path: Path, part: Path, table: pa.Table, order: Sequence[int]) -> int:
        """Write the rows of `part`, which this writer made, and those of `table` to `path`: row n of it is row
        order[n] of the two put together. Flush and fsync; return the size in bytes. Raises OSError, ArrowInvalid."""
        ...

    def join(self, path: Path, parts: Sequence[Path]) -> int:
        """Write the rows of `parts`, which this writer made of tables with the same columns, to `path`, in this order
        and a few at a time. Flush and fsync; return the size in bytes. Raises OSError, ArrowInvalid."""
        ...
