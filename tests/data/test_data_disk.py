"""A disk that fails now and then: what is read again gives the same rows, and where it stays away that is told."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from data_support import Everything, check_chunk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from example_counts import examples
from penstock.data.base import Source
from penstock.data.open import open_source
from penstock.data.tables import TableReader
from penstock.errors import InputError

ROWS = [{"id": number, "text": f"row {number} " + "x" * 100} for number in range(500)]


class FailingFile(io.FileIO):
    """Raises EIO at those of all reads, of all files, that `fails` names."""

    def __init__(self, path: Path, fails: Callable[[], bool]) -> None:
        super().__init__(path)
        self._fails = fails

    def readinto(self, buffer: Any) -> int:
        if self._fails():
            raise OSError(errno.EIO, "Input/output error")
        return super().readinto(buffer[:700] if len(buffer) > 700 else buffer) or 0


def read_with_patience(source: Source) -> tuple[Everything, int]:
    """Everything, and how many reads failed."""
    found, failures = Everything(), 0
    while True:
        try:
            chunk = source.read(found.end, None, 7)
        except InputError as error:
            assert error.passing and error.where is not None, error
            failures += 1
            continue
        if chunk is None:
            break
        check_chunk(chunk, found.end, 7)
        found.rows.update(zip(chunk.positions, chunk.rows, strict=True))
        found.end = chunk.next_position
    source.close()
    return found, failures


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("disk")
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    found = {name: folder / f"rows.{name}" for name in ("jsonl", "jsonl.gz", "jsonl.zst", "csv")}
    found["jsonl"].write_bytes(lines)
    found["jsonl.gz"].write_bytes(gzip.compress(lines))
    found["jsonl.zst"].write_bytes(zstandard.compress(lines))
    with found["csv"].open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text"])
        writer.writeheader()
        writer.writerows(ROWS)
    return found


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.zst", "csv"])
@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(failing=st.sets(st.integers(0, 60), min_size=1, max_size=6))
def test_what_is_read_again_gives_the_same_rows(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, kind: str, failing: set[int]
) -> None:
    source = open_source([str(files[kind])])
    reads = iter(range(10**6))
    with monkeypatch.context() as patched:
        patched.setattr(
            "penstock.data.streams.open",
            lambda path, mode: io.BufferedReader(FailingFile(path, lambda: next(reads) in failing), 1024),
            raising=False,
        )
        found, failures = read_with_patience(source)
    assert found.values == ROWS
    assert failures >= (min(failing) < 4), "that many reads any file takes"


def test_tables_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=100)
    source, step, steps = open_source([str(path)]), TableReader._step, iter(range(10**6))

    def failing(reader: TableReader) -> None:
        if next(steps) in (1, 2, 5):
            raise OSError(errno.EIO, "Input/output error")
        step(reader)

    monkeypatch.setattr(TableReader, "_step", failing)
    found, failures = read_with_patience(source)
    assert found.values == ROWS and failures == 3


def test_a_disk_that_stays_away_is_told_with_file_and_place(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source([str(files["jsonl"])])
    reads = iter(range(10**6))
    monkeypatch.setattr(
        "penstock.data.streams.open",
        lambda path, mode: io.BufferedReader(FailingFile(path, lambda: next(reads) > 20), 1024),
        raising=False,
    )
    with pytest.raises(InputError, match=r"rows\.jsonl: read failed after byte \d+: Input/output error"):
        source.read(0, None, 7)
    source.close()
