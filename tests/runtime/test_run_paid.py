"""What a replica has answered is not asked for again after a kill, also where the row had steps left."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_support import output, run, start, summary, wait_until

from penstock.errors import PenstockError
from penstock.ledger.files import Files
from penstock.ledger.layout import Layout
from penstock.ledger.manifest import Manifest

pytestmark = pytest.mark.process

ROWS = 60
STEPS = """\
import os, time

def _note(what):
    with open(os.environ["PENSTOCK_TEST_CALLS"], "a") as file:
        file.write(what + "\\n")

def draft(row):
    _note(f"draft {row['id']}")
    return {"draft": f"draft of {row['id']}"}

def split(row):
    _note(f"split {row['id']}")
    return [{"part": part} for part in range(3)]

def finish(row):
    time.sleep(float(os.environ.get("PENSTOCK_TEST_SLOW", "0")))
    _note(f"finish {row['id']} {row.get('part', '')}")
    return {"end": f"{row['draft']} {row.get('part', '')}"}
"""


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch, *, expand: bool, slow: bool) -> None:
    """Rows are drafted at once, and then wait for a slow function (which takes children first) or a slow model."""
    if not (folder / "rows.jsonl").exists():
        (folder / "rows.jsonl").write_text("".join(json.dumps({"id": number}) + "\n" for number in range(ROWS)))
    (folder / "made_steps.py").write_text(STEPS)
    model = {"ref": "mock:slow", "replicas": 1, "engine_options": {"ms_per_row": 100 if slow else 0}}
    last: list[dict[str, Any]] = (
        [{"expand": {"function": "made_steps:split"}}, {"map": {"function": "made_steps:finish"}}]
        if expand
        else [{"generate": {"model": "slow", "prompt": "{{ draft }}", "output": "end", "max_tokens": 2}}]
    )
    written = {
        **({} if expand else {"models": {"slow": model}}),
        "source": {"path": "rows.jsonl"},
        "steps": [{"map": {"function": "made_steps:draft"}}, *last],
        "sink": {"path": "out"},
        "commit_every_s": 0.2,
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
    monkeypatch.setenv("PENSTOCK_TEST_CALLS", str(folder / "calls.txt"))
    monkeypatch.setenv("PENSTOCK_TEST_SLOW", "0.1" if slow else "0")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def calls(folder: Path) -> Counter[str]:
    path = folder / "calls.txt"
    return Counter(path.read_text().splitlines()) if path.exists() else Counter()


def kept_apart(folder: Path) -> int:
    """Results in the newest entry, of rows that have not ended."""
    layout = Layout(folder / "out")
    try:
        newest = Manifest(layout, Files()).newest()
    except (PenstockError, OSError):  # not begun
        return 0
    return sum(segment.rows for segment in newest.partial) if newest else 0


@pytest.mark.parametrize("expand", [False, True], ids=["chain", "family"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_paid_results_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expand: bool, how: int) -> None:
    prepare(tmp_path, monkeypatch, expand=expand, slow=True)
    process = start(tmp_path)
    wait_until(lambda: kept_apart(tmp_path) >= (20 if expand else ROWS - 5), "results of unfinished rows in a commit")
    os.kill(process.pid, how)
    process.wait()
    assert len(list((tmp_path / "out" / "data").iterdir())) <= 1
    prepare(tmp_path, monkeypatch, expand=expand, slow=False)
    assert run(tmp_path) == 0
    each = 3 if expand else 1
    assert [row["id"] for row in output(tmp_path)] == [number for number in range(ROWS) for _ in range(each)]
    assert summary(tmp_path)["rows"]["out"] == ROWS * each
    called = calls(tmp_path)
    again = [call for call, count in called.items() if count > 1]
    # In good order nothing is lost; killed: what was at work, and what no commit has had yet (0.2 s of it, and as long
    # as a commit takes on a busy machine, at 20 calls a second).
    assert len(again) <= (0 if how == signal.SIGTERM else 2 + 20), again
    assert expand or not again, "every row had been drafted"
    assert len(called) == ROWS * (2 + each if expand else 1)
