"""stdout and stderr that are closed, full, or pipes whose reader has gone."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.process

COMMAND = [sys.executable, "-m", "penstock.cli"]
PIPELINE = {
    "models": {"writer": {"ref": "mock:test", "replicas": 1}},
    "source": {"path": "rows.jsonl"},
    "steps": [{"generate": {"model": "writer", "prompt": "{{ q }}", "output": "a", "max_tokens": 2}}],
    "sink": {"path": "out", "format": "jsonl"},
}
WAYS = [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full", "| :"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pipeline, and a run of it that has ended."""
    folder = tmp_path_factory.mktemp("streams")
    (folder / "rows.jsonl").write_text("".join(f'{{"q": "q{number}"}}\n' for number in range(20)))
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(PIPELINE))
    assert penstock(folder, "run pipeline.yaml --out done", "") == (0, "", "")
    yield folder


def penstock(folder: Path, arguments: str, way: str) -> tuple[int, str, str]:
    """The exit code of the command, and what of stdout and stderr could be heard."""
    display = " --display none" if arguments.split()[0] in ("run", "retry", "preview") else ""
    line = f"set -o pipefail; {shlex.join(COMMAND)} {arguments}{display} {way}"
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_the_exit_code_of_a_run_is_what_the_run_did(folder: Path, way: str) -> None:
    out = f"out-{WAYS.index(way)}"
    code, _, told = penstock(folder, f"run pipeline.yaml --json --out {out}", way)
    assert code == 0
    assert "Traceback" not in told and "unexpected" not in told and "Exception" not in told
    lost = way.startswith(">") and "2>" not in way
    assert told.startswith(
        f"the output could not be written to stdout: {'it is closed' if '&' in way else 'No '}" if lost else ""
    )
    assert (f"see {out}/summary.json" in told) == lost
    rows = "".join(part.read_text() for part in (folder / out / "data").iterdir())
    assert rows == "".join(part.read_text() for part in (folder / "done" / "data").iterdir())
    assert rows.count("\n") == 20


def test_the_display_of_a_run_may_be_lost(folder: Path) -> None:
    for display, way in (("auto", "2>&-"), ("rich", "2>/dev/full"), ("jsonl", "2>/dev/full"), ("plain", "2>&-")):
        line = f"{shlex.join(COMMAND)} run pipeline.yaml --out shown-{display} --display {display} {way}"
        done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, timeout=240)
        assert (done.returncode, done.stdout) == (0, b""), line


@pytest.mark.parametrize("way", WAYS[3:5])
@pytest.mark.parametrize("arguments", ["retry done --json", "run pipeline.yaml --json --out done"])
def test_nothing_to_do_is_done(folder: Path, arguments: str, way: str) -> None:
    code, _, told = penstock(folder, arguments, way)
    assert (code, "Traceback" in told) == (0, False), told


@pytest.mark.parametrize("way", [">&-", "2>&-", ">/dev/full", ">/dev/full 2>/dev/full", "| :"])
@pytest.mark.parametrize("arguments", ["status done", "plan pipeline.yaml --json", "doctor", "--help"])
def test_a_command_whose_product_is_lost_has_failed(folder: Path, arguments: str, way: str) -> None:
    """As of cat and ls: one line that says so, and code 1; and not a word to who has gone (`| head`)."""
    code, heard, told = penstock(folder, arguments, way)
    if way.startswith("2"):
        assert (code, told) == (0, "")
        assert heard
        return
    quiet = "2>" in way or way == "| :"
    closed = arguments == "--help" and ">&-" in way  # written by a library, which is none the wiser
    assert code == 0 if closed else code in (0, 1) if way == "| :" else code == 1
    if quiet or closed:
        assert told == ""
    else:
        assert told.startswith("penstock: the output could not be written to stdout: ")
        assert told.count("\n") == 1


def test_a_preview_that_nobody_can_see_has_failed(folder: Path) -> None:
    code, _, told = penstock(folder, "preview pipeline.yaml -n 1", ">/dev/full")
    assert code == 1
    assert "the output could not be written to stdout: No space left on device" in told


def test_an_error_that_nobody_hears_keeps_its_code(folder: Path) -> None:
    for way in (">&- 2>&-", "2>/dev/full"):
        assert penstock(folder, "run absent.yaml", way)[0] == 2
        assert penstock(folder, "plan absent.yaml --json", way)[0] == 2


def test_a_reader_that_has_gone_while_a_run_ends(folder: Path) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    command = [*COMMAND, "run", "pipeline.yaml", "--out", "gone", "--json", "--display", "plain"]
    done = subprocess.run(command, cwd=folder, stdout=writable, stderr=writable, timeout=240)
    os.close(writable)
    assert done.returncode == 0
