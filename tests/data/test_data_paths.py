from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.data.paths import classify, resolve
from penstock.errors import InputError


def names(paths: list[str] | str) -> list[str]:
    return [file.path.name for file in resolve(paths)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jsonl", "a.jsonl.gz", ".hidden.jsonl", "_meta.jsonl", "notes.txt", "c.ndjson.zst"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "d.jsonl").write_bytes(b"x")
    return tmp_path


def test_a_folder_gives_its_own_visible_data_files_sorted(folder: Path) -> None:
    assert names(str(folder)) == ["a.jsonl.gz", "b.jsonl", "c.ndjson.zst"]


def test_globs_are_sorted_and_lists_keep_their_order(folder: Path) -> None:
    assert names(f"{folder}/**/*.jsonl") == ["_meta.jsonl", "b.jsonl", "d.jsonl"]
    assert names([f"{folder}/inner/d.jsonl", f"{folder}/b.jsonl"]) == ["d.jsonl", "b.jsonl"]
    assert names([f"{folder}/inner", f"{folder}/[ab].jsonl*"]) == ["d.jsonl", "a.jsonl.gz", "b.jsonl"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "part[1].jsonl").write_bytes(b"x")
    assert names(f"{tmp_path}/part[1].jsonl") == ["part[1].jsonl"]


def test_a_missing_file_is_named_with_its_resolved_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=str(tmp_path / "gone.jsonl")) as caught:
        resolve("gone.jsonl")
    assert caught.value.exit_code == 2


def test_an_empty_glob_and_a_folder_without_data_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file matches"):
        resolve(f"{tmp_path}/*.jsonl")
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match=r"looked for \.jsonl.*subfolders are not searched \(data\)"):
        resolve(str(tmp_path))


def test_unknown_suffixes_name_the_supported_ones_unless_a_format_is_given(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"x")
    with pytest.raises(InputError, match=r"'\.tsv' is not supported; expected \.jsonl"):
        resolve(str(tmp_path / "a.tsv"))
    assert resolve(str(tmp_path / "a.tsv"), "csv")[0].format == "csv"
    with pytest.raises(InputError, match="unknown format"):
        resolve(str(tmp_path / "a.tsv"), "tsv")


def test_mixed_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"x")
    (tmp_path / "b.jsonl").write_bytes(b"x")
    with pytest.raises(InputError, match="mixes formats"):
        resolve(str(tmp_path))


def test_what_is_no_regular_file_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(InputError, match="not a regular file"):
        resolve(str(tmp_path / "pipe.jsonl"))


def test_no_permission_tells_mode_and_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x")
    path.chmod(0o200)
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as a user who may read everything
    with pytest.raises(InputError, match=rf"mode 0200, owner uid {path.stat().st_uid}; running as uid {os.geteuid()}"):
        resolve(str(path))


def test_no_path_at_all_is_an_error() -> None:
    with pytest.raises(InputError, match="has no files"):
        resolve([])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.JSONL", ("jsonl", "")),
        ("a.json.gz", ("jsonl", "gzip")),
        ("a.csv.zst", ("csv", "zstd")),
        ("a.parquet.gz", None),
        ("a.gz", None),
        ("a", None),
        ("a.feather", ("arrow", "")),
    ],
)
def test_suffixes(name: str, expected: tuple[str, str] | None) -> None:
    assert classify(name) == expected
