"""Names of files and folders are bytes: those that are not UTF-8 are read, written and told, with escapes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from retry_support import retry, rows, well
from run_support import dead, errors, run, summary

from penstock.data.open import open_source
from penstock.errors import InputError

BYTES = os.fsdecode(b"a\xff")
SHOWN = "a\\udcff"


def write(folder: Path, format: str) -> None:
    (folder / "rows").mkdir(parents=True)
    (folder / "rows" / f"{BYTES}.jsonl").write_text('{"id": 0, "q": "q0"}\n{"id": 1, "q": "q1"}\n{"id": 2\n')
    (folder / "own_steps.py").write_text("def halves(row):\n    return [{'half': 0}, {'half': 1}]\n")
    models = {name: {"ref": f"mock:{name}", "engine_options": {"fail_on": "q1"}} for name in "ab"}
    steps = [{"generate": {"model": name, "prompt": "{{ q }}", "output": name}} for name in "ab"]
    written = {
        "models": models,
        "source": {"path": "rows"},
        "steps": [*steps, {"expand": {"function": "own_steps:halves"}}],
        "sink": {"path": "out", "format": format},
        "max_dead": 1.0,
        "resources": {"load_strategy": "phases"},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(written, sort_keys=False))


def test_a_source_names_its_files_in_valid_text(tmp_path: Path) -> None:
    write(tmp_path, "jsonl")
    source = open_source([str(tmp_path / "rows")], "auto", None)
    chunk = source.read(0, None, 10)
    assert chunk is not None and len(chunk.rows) == 2
    assert source.locate(1) == (f"{tmp_path}/rows/{SHOWN}.jsonl", 1)
    source.close()


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_what_arrow_can_not_open_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"{BYTES}.{suffix}").write_bytes(b"x")
    with pytest.raises(InputError, match="its name is not UTF-8"):
        open_source([str(tmp_path)], "auto", None)


@pytest.mark.process
@pytest.mark.parametrize("format", ["parquet", "jsonl", "arrow"])
def test_a_run_and_a_retry_in_a_folder_of_such_a_name(tmp_path: Path, format: str) -> None:
    folder = tmp_path / BYTES
    write(folder, format)
    assert run(folder) == 0, errors(folder)
    assert [(row["source"], row["row"]) for row in rows_of_dead(folder)] == [(f"rows/{SHOWN}.jsonl", n) for n in (1, 2)]
    again = [*well(), "--set", "models.b.engine_options.fail_on=nothing", "--pipeline", "pipeline.yaml"]
    assert retry(folder, *again) == 0, errors(folder)
    assert (summary(folder)["rows"]["out"], summary(folder)["rows"]["dead"]) == (4, 1)
    command = [sys.executable, "-m", "penstock.cli", "status", str(folder / "out"), "--json"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert told.returncode == 0 and SHOWN.replace("\\", "\\\\") in told.stdout
    os.rename(folder, tmp_path / "plain")
    assert [row["id"] for row in rows(tmp_path / "plain")] == [0, 0, 1, 1]


def rows_of_dead(folder: Path) -> list[dict[str, object]]:
    """Read under a name that Arrow takes."""
    link = folder.parent / "link"
    link.symlink_to(folder)
    try:
        return dead(link)
    finally:
        link.unlink()
