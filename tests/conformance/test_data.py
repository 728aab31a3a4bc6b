"""Every source and every part writer passes its suite."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.data.base import PartWriter, Row, Source
from penstock.data.open import open_rows, open_source
from penstock.data.parts import writer_for
from penstock.runtime.retry.scope import ChosenSource
from penstock.testing import PartWriterConformance, SourceConformance

ROWS: list[dict[str, Any]] = [{"n": number, "text": f"row {number}"} for number in range(40)]


class Files(SourceConformance):
    """Of two files: positions count through both."""

    rows = ROWS
    suffix: ClassVar[str]

    def write(self, path: Path, rows: list[Row]) -> None:
        raise NotImplementedError

    def open(self, folder: Path) -> Source:
        paths = [folder / f"{name}{self.suffix}" for name in "ab"]
        for path, rows in zip(paths, (self.rows[:17], self.rows[17:]), strict=True):
            if not path.exists():
                self.write(path, rows)
        return open_source([str(path) for path in paths])


class TestJsonLines(Files):
    suffix = ".jsonl"

    def write(self, path: Path, rows: list[Row]) -> None:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


class TestCompressedJsonLines(Files):
    suffix = ".jsonl.gz"

    def write(self, path: Path, rows: list[Row]) -> None:
        path.write_bytes(gzip.compress("".join(f"{json.dumps(row)}\n" for row in rows).encode()))


class TestCsv(Files):
    suffix = ".csv"

    def write(self, path: Path, rows: list[Row]) -> None:
        path.write_text("n,text\n" + "".join(f"{row['n']},{row['text']}\n" for row in rows))


class TestParquet(Files):
    suffix = ".parquet"

    def write(self, path: Path, rows: list[Row]) -> None:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=6)


class TestArrow(Files):
    suffix = ".arrow"

    def write(self, path: Path, rows: list[Row]) -> None:
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=6)


class TestRowsInPython(SourceConformance):
    rows = ROWS

    def open(self, folder: Path) -> Source:
        return open_rows(self.rows)


class TestChosenRows(SourceConformance):
    """Of a source of which every other row is run again."""

    rows = ROWS[::2]

    def open(self, folder: Path) -> Source:
        return ChosenSource(open_rows(ROWS), list(range(0, len(ROWS), 2)))


class TestParquetParts(PartWriterConformance):
    writer: ClassVar[PartWriter] = writer_for("parquet")

    def read(self, path: Path) -> list[Row]:
        return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]


class TestArrowParts(PartWriterConformance):
    writer: ClassVar[PartWriter] = writer_for("arrow")

    def read(self, path: Path) -> list[Row]:
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_file(file).read_all().to_pylist()  # type: ignore[no-any-return]


class TestJsonLinesParts(PartWriterConformance):
    writer: ClassVar[PartWriter] = writer_for("jsonl")

    def read(self, path: Path) -> list[Row]:
        return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_suite_finds_a_source_that_loses_a_row(tmp_path: Path) -> None:
    """A suite that everything passes would be worth nothing."""

    class Suite(SourceConformance):
        rows = ROWS

        def open(self, folder: Path) -> Source:
            return ChosenSource(open_rows(ROWS), [*range(20), *range(21, 40)])

    with pytest.raises(AssertionError):
        Suite().test_every_row_comes_once_in_order(tmp_path)
