from __future__ import annotations

import datetime as dt
import json
import os
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_support import read_all

from penstock.data import parts
from penstock.data.dead import DEAD_SCHEMA, dead_table
from penstock.data.open import open_source
from penstock.data.parts import writer_for
from penstock.errors import ConfigError

TABLE = pa.table({"id": [1, 2, None], "text": ["a\u2028\n", "é", None], "list": [[1.5], [], None]})


@pytest.mark.parametrize("format", ["parquet", "jsonl", "arrow"])
def test_a_part_is_read_back_as_it_was(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    writer = writer_for(format)
    path = tmp_path / f"part{writer.suffix}"
    assert writer.write(path, TABLE) == path.stat().st_size
    assert len(synced) == 1
    assert read_all(open_source(str(path))).values == TABLE.to_pylist()


@pytest.mark.parametrize("format", ["parquet", "jsonl", "arrow"])
def test_a_part_without_rows(tmp_path: Path, format: str) -> None:
    writer = writer_for(format)
    path = tmp_path / f"part{writer.suffix}"
    writer.write(path, TABLE.slice(0, 0))
    assert read_all(open_source(str(path))).values == []


def test_json_has_readable_forms_of_what_it_lacks(tmp_path: Path) -> None:
    table = pa.table(
        {
            "when": pa.array([dt.datetime(2020, 1, 2, 3, 4, 5)], pa.timestamp("ns")),
            "price": [Decimal("1.50")],
            "raw": [b"abc"],
            "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
            "nan": [float("nan")],
        }
    )
    path = tmp_path / "a.jsonl"
    writer_for("jsonl").write(path, table)
    assert json.loads(path.read_text()) == {
        "when": "2020-01-02T03:04:05",
        "price": "1.50",
        "raw": "YWJj",
        "map": {"a": 1},
        "nan": None,
    }


def test_parquet_is_compressed_and_says_what_it_can_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    writer_for("parquet").write(path, TABLE)
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    with pytest.raises(ConfigError, match="format: arrow"):
        writer_for("parquet").write(path, pa.table({"a": pa.array([{}], pa.struct([]))}))


def test_unknown_formats_name_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="jsonl, parquet, arrow"):
        writer_for("xlsx")


def test_a_write_that_fails_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        writer_for("parquet").write(tmp_path / "none" / "a.parquet", TABLE)


def test_the_dead_letter_table(tmp_path: Path) -> None:
    rows = [
        SimpleNamespace(
            source="a.jsonl",
            row=row,
            path=[0, 2],
            step="generate",
            code="too_long",
            message=message,
            attempts=1,
            input="{}",
        )
        for row, message in enumerate(["fine", "half \ud800"])
    ]
    table = dead_table(rows)
    assert table.schema == DEAD_SCHEMA
    assert table["message"].to_pylist() == ["fine", "half \\ud800"]
    assert table["path"].to_pylist() == [[0, 2], [0, 2]]
    assert dead_table([]).schema == DEAD_SCHEMA
    writer_for("parquet").write(tmp_path / "dead.parquet", table)
    assert pq.read_table(tmp_path / "dead.parquet").column_names == DEAD_SCHEMA.names


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_joining_reads_a_group_at_a_time(tmp_path: Path, format: str) -> None:
    """A joined part may be small as a file, and larger than memory once decoded."""
    writer = writer_for(format)
    table = pa.table({"q": ["x" * (1 << 20)] * 20})
    paths = [tmp_path / f"{number}{writer.suffix}" for number in range(4)]
    for path in paths:
        writer.write(path, table)
    joined, again = tmp_path / f"joined{writer.suffix}", tmp_path / f"again{writer.suffix}"
    writer.join(joined, [*paths, *paths])
    read = parts._row_groups if format == "parquet" else parts._batches
    assert max(piece.nbytes for piece in read(joined)) <= 84 << 20
    writer.join(again, [joined, *paths])
    assert sum(piece.num_rows for piece in read(again)) == 240
