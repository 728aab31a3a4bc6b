"""The output is read by what people have: pyarrow, DuckDB, datasets. At any moment, also while the run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from run_support import pipeline, run, start, summary, write_rows

pytestmark = pytest.mark.process

ROWS = 230_000  # more than two parts


def by_pyarrow(folder: Path) -> list[int]:
    found: list[int] = ds.dataset(folder).to_table(columns=["id"]).column("id").to_pylist()
    return found


def by_duckdb(folder: Path) -> list[int]:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        found: list[tuple[int]] = connection.sql(f"SELECT id FROM '{folder}/*.parquet'").fetchall()
    return [number for (number,) in found]


def by_datasets(folder: Path) -> list[int]:
    datasets = pytest.importorskip("datasets")
    files = sorted(map(str, folder.glob("*.parquet")))
    cache = str(folder.parent.parent / "cache")
    found: Any = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    return list(found["id"])


def test_at_any_moment(tmp_path: Path) -> None:
    """What is there is whole: the beginning of the output, longer each time."""
    write_rows(tmp_path, ROWS)
    pipeline(tmp_path, slots=256)
    process = start(tmp_path)
    data, lengths = tmp_path / "out" / "data", {0}
    while process.poll() is None:
        if data.is_dir() and any(data.iterdir()):
            for read in (by_pyarrow, by_duckdb):
                ids = read(data)
                assert ids == list(range(len(ids)))
                lengths.add(len(ids))
    assert process.returncode == 0
    assert by_pyarrow(data) == by_duckdb(data) == list(range(ROWS))
    assert len(lengths) > 1 and summary(tmp_path)["rows"]["out"] == ROWS


def test_by_datasets_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_rows(tmp_path, 900)
    pipeline(tmp_path)
    assert run(tmp_path, "--limit", "400") == 0
    assert run(tmp_path) == 0
    assert len(list((tmp_path / "out" / "data").iterdir())) == 2
    assert by_datasets(tmp_path / "out" / "data") == list(range(900))
