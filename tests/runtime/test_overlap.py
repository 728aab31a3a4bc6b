"""Which patterns take in what a run writes: judged by `glob` itself, which sees the files once they are there."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.runtime.run.output_inside_input import refuse_overlap

PART = "data/part-00000.jsonl"
NAMES = st.sampled_from(["in", "out", ".out", "data", "a.b"])
SEGMENTS = st.sampled_from(["*", "**", "in", "out", "o*", "?ut", ".*", "data", "*.jsonl", "part-*", "[ab]*"])


@contextmanager
def inside(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def refused(pattern: str, out: Path) -> bool:
    try:
        refuse_overlap((pattern,), out, "jsonl")
    except ConfigError:
        return True
    return False


@given(folders=st.lists(NAMES, min_size=1, max_size=3), segments=st.lists(SEGMENTS, min_size=1, max_size=5))
def test_a_pattern_that_would_find_a_part_is_refused(folders: list[str], segments: list[str]) -> None:
    pattern = "/".join([*segments, "*"])
    with tempfile.TemporaryDirectory() as root, inside(root):
        out = Path(*folders)
        said = refused(pattern, out)
        (out / "data").mkdir(parents=True)
        (out / "dead").mkdir()
        written = [out / PART, out / "dead/part-00000.parquet", out / "run.json", out / "summary.json"]
        for path in written:
            path.write_text("")
        found = {Path(name) for name in glob.glob(pattern, recursive=True)}
        assert said == any(path in found for path in (*written, out, out / "data", out / "dead"))


@pytest.mark.parametrize(
    ("pattern", "out", "overlaps"),
    [
        ("in/*.jsonl", "in/out", False),
        ("in/*", "in/out", True),
        ("in/**/*.jsonl", "in/out", True),
        ("in/**/*.csv", "in/out", False),
        ("../**/*.jsonl", "out", True),
        ("link/**/*.jsonl", "in/out", True),
        ("~/**/*.jsonl", "/elsewhere/out", False),
    ],
)
def test_patterns_of_every_day(
    pattern: str, out: str, overlaps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    monkeypatch.chdir(tmp_path)
    assert refused(pattern, Path(out)) is overlaps
