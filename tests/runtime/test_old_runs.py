"""Runs that an earlier Penstock (0.1.0) began and that were killed: this one continues them, each row once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from run_support import run, summary

pytestmark = pytest.mark.process

OLD_RUNS = Path(__file__).parents[1] / "fixtures" / "old_runs"
EMPTY = ("data", "dead", ".penstock/keys", ".penstock/staging")  # folders of a run that version control does not keep


@pytest.mark.parametrize(("name", "ended", "columns"), [("plain", 244, {"one"}), ("phased", 137, {"one", "two"})])
def test_a_run_of_an_earlier_version_is_continued(tmp_path: Path, name: str, ended: int, columns: set[str]) -> None:
    folder = tmp_path / name
    shutil.copytree(OLD_RUNS / name, folder)
    for empty in EMPTY:
        (folder / "out" / empty).mkdir(exist_ok=True)
    for empty in ("data", "dead", ".penstock/keys", ".penstock/segments", ".penstock/staging"):
        (folder / "out" / empty).mkdir(exist_ok=True)  # version control keeps no empty folders
    assert run(folder) == 0
    rows = [
        json.loads(line)
        for part in sorted((folder / "out" / "data").iterdir())
        for line in part.read_text().splitlines()
    ]
    assert [row["id"] for row in rows] == list(range(400))
    assert all(row.keys() == {"id", "text", *columns} and all(row[column] for column in columns) for row in rows)
    assert summary(folder)["rows"] == {"in": 400, "out": 400, "dead": 0, "filtered": 0, "reused": ended}
