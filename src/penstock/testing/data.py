"""Conformance tests for sources and part writers: subclass a suite, say how to make one, run pytest.

class TestMyFormat(SourceConformance):
    rows = [{"n": number, "text": f"row {number}"} for number in range(40)]

    def open(self, folder: Path) -> Source:
        ...  # write the rows to `folder` where they are not there yet, and open them

class TestMyParts(PartWriterConformance):
    writer = MyWriter()

    def read(self, path: Path) -> list[Row]:
        ...  # the rows of a part, as somebody else's program would read them
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from penstock.data.base import Chunk, PartWriter, Row, Source

__all__ = ["PartWriterConformance", "SourceConformance"]

_FULL_DISK = Path("/dev/full")


class SourceConformance:
    """`rows`: what the source holds, at least 20 of them, each with the same columns. `open`: a source of them; called
    several times with one folder, it opens the same source again."""

    rows: ClassVar[list[Row]] = []

    def open(self, folder: Path) -> Source:
        raise NotImplementedError

    def read(
        self, source: Source, start: int = 0, max_rows: int = 7, skip: Callable[[int], bool] | None = None
    ) -> dict[int, Row]:
        """Everything from `start` on, by position, each chunk looked at."""
        found: dict[int, Row] = {}
        while (chunk := source.read(start, skip, max_rows)) is not None:
            self._check(chunk, start, max_rows)
            found.update(zip(chunk.positions, chunk.rows, strict=True))
            start = chunk.next_position
        return found

    @staticmethod
    def _check(chunk: Chunk, start: int, max_rows: int) -> None:
        assert len(chunk.positions) == len(chunk.rows) == len(chunk.sizes_bytes) <= max_rows
        assert chunk.next_position > start, "a chunk leads on, also where all of it was skipped"
        assert chunk.positions == sorted(set(chunk.positions))
        assert all(start <= position < chunk.next_position for position in chunk.positions)
        assert all(size > 0 for size in chunk.sizes_bytes)

    # ------------------------------------------------------------ tests

    def test_every_row_comes_once_in_order(self, tmp_path: Path) -> None:
        source = self.open(tmp_path)
        assert self.read(source) == dict(enumerate(self.rows))
        assert source.read(len(self.rows), None, 7) is None, "the end stays the end"
        source.close()

    @pytest.mark.parametrize("max_rows", [1, 3, 1000])
    def test_the_size_of_a_read_does_not_matter(self, tmp_path: Path, max_rows: int) -> None:
        source = self.open(tmp_path)
        assert self.read(source, max_rows=max_rows) == dict(enumerate(self.rows))
        source.close()

    def test_reading_begins_anywhere_and_goes_back(self, tmp_path: Path) -> None:
        source, everything = self.open(tmp_path), dict(enumerate(self.rows))
        for start in (len(self.rows) - 1, 5, 0, 13):
            assert self.read(source, start) == {at: row for at, row in everything.items() if at >= start}
        source.close()

    def test_skipped_rows_are_left_out_and_keep_their_positions(self, tmp_path: Path) -> None:
        source, everything = self.open(tmp_path), dict(enumerate(self.rows))
        assert self.read(source, skip=lambda at: at % 3 == 1) == {
            at: row for at, row in everything.items() if at % 3 != 1
        }
        assert self.read(source, skip=lambda at: True) == {}
        source.close()

    def test_the_schema_has_the_columns_of_the_rows(self, tmp_path: Path) -> None:
        source = self.open(tmp_path)
        assert source.schema.names == list(self.rows[0])
        source.close()

    def test_a_row_is_located_in_one_place(self, tmp_path: Path) -> None:
        source = self.open(tmp_path)
        self.read(source)
        places = [source.locate(position) for position in range(len(self.rows))]
        assert len(set(places)) == len(self.rows)
        assert all(isinstance(name, str) and ordinal >= 0 for name, ordinal in places)
        source.close()

    def test_counts_are_right_or_not_given(self, tmp_path: Path) -> None:
        source = self.open(tmp_path)
        assert source.total_rows in (None, len(self.rows))
        estimated = source.estimate_rows()
        assert estimated is None or estimated >= 0
        self.read(source)
        assert source.total_rows in (None, len(self.rows))
        source.close()

    def test_it_has_the_same_identity_when_it_is_opened_again(self, tmp_path: Path) -> None:
        first, second = self.open(tmp_path), self.open(tmp_path)
        assert json.loads(json.dumps(first.identity())) == first.identity() == second.identity()
        assert second.identity(first.identity()) == first.identity()
        first.close()
        second.close()

    def test_what_was_read_is_proven_to_a_later_life(self, tmp_path: Path) -> None:
        """The mark of a part, and of everything, is accepted by the same source opened again, which gives the rest."""
        for until in (9, len(self.rows)):
            source = self.open(tmp_path)
            at = 0
            while at < until and (chunk := source.read(at, None, until - at)) is not None:
                at = chunk.next_position
            mark = None if source.proof is None else source.proof.mark(at)
            source.close()
            again = self.open(tmp_path)
            if mark is not None and again.proof is not None:
                again.proof.begin(mark)
            assert self.read(again, at) == {position: row for position, row in enumerate(self.rows) if position >= at}
            again.close()

    def test_it_can_be_closed_at_any_time(self, tmp_path: Path) -> None:
        self.open(tmp_path).close()
        source = self.open(tmp_path)
        source.read(0, None, 3)
        source.close()


class PartWriterConformance:
    """`writer`: the one under test. `read`: the rows of a part, as another program would read them; a column without a
    value may be None or missing."""

    writer: ClassVar[PartWriter]
    table: ClassVar[pa.Table] = pa.table(
        {
            "n": pa.array([3, None, 1, 2], pa.int64()),
            "text": pa.array(["a\nb", "", None, "\u00e9\u4e2d"], pa.string()),
            "list": pa.array([[1.5], [], None, [0.0, -2.0]], pa.list_(pa.float64())),
            "deep": pa.array([{"yes": True}, {"yes": None}, None, {"yes": False}], pa.struct([("yes", pa.bool_())])),
        }
    )

    def read(self, path: Path) -> list[Row]:
        raise NotImplementedError

    def rows(self, path: Path) -> list[Row]:
        return [{name: row.get(name) for name in self.table.column_names} for row in self.read(path)]

    def part(self, folder: Path, name: str, table: pa.Table) -> Path:
        path = folder / f"{name}{self.writer.suffix}"
        assert self.writer.write(path, table) == path.stat().st_size
        return path

    # ------------------------------------------------------------ tests

    def test_a_part_holds_the_rows_in_their_order(self, tmp_path: Path) -> None:
        assert self.writer.suffix.startswith(".")
        assert self.rows(self.part(tmp_path, "a", self.table)) == self.table.to_pylist()

    def test_a_part_without_rows_can_be_read(self, tmp_path: Path) -> None:
        assert self.rows(self.part(tmp_path, "a", self.table.slice(0, 0))) == []

    def test_a_part_is_replaced_whole(self, tmp_path: Path) -> None:
        self.part(tmp_path, "a", self.table)
        assert self.rows(self.part(tmp_path, "a", self.table.slice(3))) == self.table.slice(3).to_pylist()

    def test_rows_are_put_between_those_of_a_part(self, tmp_path: Path) -> None:
        old, new = self.table.slice(0, 3), self.table.slice(3)
        part, path = self.part(tmp_path, "old", old), tmp_path / f"new{self.writer.suffix}"
        order = [3, 2, 0, 1]
        assert self.writer.write_with(path, part, new, order) == path.stat().st_size
        both = [*old.to_pylist(), *new.to_pylist()]
        assert self.rows(path) == [both[index] for index in order]

    def test_parts_are_joined_in_their_order(self, tmp_path: Path) -> None:
        pieces: list[Any] = [self.table.slice(2), self.table.slice(0, 0), self.table.slice(0, 2)]
        parts = [self.part(tmp_path, str(index), piece) for index, piece in enumerate(pieces)]
        path = tmp_path / f"joined{self.writer.suffix}"
        assert self.writer.join(path, parts) == path.stat().st_size
        assert self.rows(path) == [row for piece in pieces for row in piece.to_pylist()]

    def test_a_folder_that_is_missing_is_an_error_of_the_system(self, tmp_path: Path) -> None:
        with pytest.raises(OSError):
            self.writer.write(tmp_path / "missing" / f"a{self.writer.suffix}", self.table)

    @pytest.mark.skipif(not _FULL_DISK.exists(), reason="this system has no /dev/full")
    def test_a_full_disk_is_an_error_of_the_system(self) -> None:
        with pytest.raises(OSError, match="No space left"):
            self.writer.write(_FULL_DISK, self.table)
