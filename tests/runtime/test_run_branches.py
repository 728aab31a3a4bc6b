"""Runs with branches, as processes: what a join gives, rows that end in one branch, phases that end inside of
branches, and being killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_support import catch, committed, dead, output_lines, run, start, summary, write_rows

pytestmark = pytest.mark.process

ROWS = 240
FUNCTIONS = """\
import os

def seen(row):
    return {"seen": sorted(row)}

def see_too(row):
    if str(row["id"]).startswith(os.environ.get("PENSTOCK_TEST_FAIL", "none")):
        raise ValueError("not yet")
    return {"seen_too": sorted(row)}
"""
STEPS: list[dict[str, Any]] = [
    {"generate": {"name": "draft", "model": "a", "prompt": "{{ question }}", "output": "short", "max_tokens": 2}},
    {"map": {"function": "branch_steps:seen", "columns": ["seen"]}},
    {"filter": {"name": "odd", "expr": "id % 7 != 3"}},
    {"generate": {"name": "final", "from": "source", "model": "b", "prompt": "{{ question }}", "output": "long",
                  "max_tokens": 3, "temperature": 1.0}},
    {"map": {"name": "see", "function": "branch_steps:see_too", "columns": ["seen_too"]}},
    {"join": {"from": "see", "with": "odd"}},
    {"generate": {"name": "last", "model": "a", "prompt": "{{ short }} {{ long }}", "output": "end", "max_tokens": 2}},
]  # fmt: skip


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, *, phases: bool, slower: int = 1) -> None:
    write_rows(folder, ROWS)
    (folder / "branch_steps.py").write_text(FUNCTIONS)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    a = {"slots": 4, "ms_per_row": 2 * slower}
    b = {"slots": 4, "ms_per_row": 3 * slower}
    written = {
        "models": {
            "a": {"ref": "mock:a", "replicas": 1, "engine_options": a},
            "b": {"ref": "mock:b", "replicas": 1, "engine_options": b},
        },
        "source": {"path": "rows.jsonl"},
        "steps": STEPS,
        "sink": {"path": "out", "format": "jsonl"},
        "commit_every_s": 0.1,
        "max_dead": 1.0,
        "resources": {"load_strategy": "phases" if phases else "together"},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(written, sort_keys=False))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("together")
    with pytest.MonkeyPatch.context() as patch:
        write(folder, patch, phases=False)
        assert run(folder) == 0
    return output_lines(folder)


def test_each_branch_sees_its_own_columns(undisturbed: list[dict[str, Any]]) -> None:
    assert [row["id"] for row in undisturbed] == [number for number in range(ROWS) if number % 7 != 3]
    first = undisturbed[0]
    assert list(first) == ["id", "question", "long", "seen_too", "short", "seen", "end"], "from before with"
    for row in undisturbed:
        assert row["seen"] == ["id", "question", "short"]
        assert row["seen_too"] == ["id", "long", "question"]


def test_phases_that_end_inside_of_branches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: list[dict[str, Any]]
) -> None:
    write(tmp_path, monkeypatch, phases=True)
    assert run(tmp_path) == 0
    assert output_lines(tmp_path) == undisturbed
    assert list(output_lines(tmp_path)[0]) == list(undisturbed[0])


@pytest.mark.parametrize("phases", [False, True], ids=["together", "phases"])
def test_killed_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: list[dict[str, Any]], phases: bool
) -> None:
    def begin(slower: int) -> Any:
        write(tmp_path, monkeypatch, phases=phases, slower=slower)
        return start(tmp_path)

    process = catch(tmp_path, begin, lambda: 20 < committed(tmp_path) < ROWS, "a part of the rows to be committed")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    write(tmp_path, monkeypatch, phases=phases)
    assert run(tmp_path) == 0
    assert output_lines(tmp_path) == undisturbed
    assert not dead(tmp_path)


@pytest.mark.parametrize("phases", [False, True], ids=["together", "phases"])
def test_rows_that_die_in_one_branch_are_retried_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: list[dict[str, Any]], phases: bool
) -> None:
    """A dead row has what its branch has seen; run again, it counts as if it had never died."""
    write(tmp_path, monkeypatch, phases=phases)
    monkeypatch.setenv("PENSTOCK_TEST_FAIL", "1")
    assert run(tmp_path) == 0
    rows = dead(tmp_path)
    # Rows that the other branch filters are ended by whichever branch is first.
    lost = {number for number in range(ROWS) if str(number).startswith("1")}
    assert {row["row"] for row in rows} <= lost and {row["row"] for row in rows} >= {n for n in lost if n % 7 != 3}
    assert all(set(json.loads(row["input"])) == {"id", "question", "long"} for row in rows), "its own branch's columns"
    steps = summary(tmp_path)["steps"]
    assert steps["see"]["dead"] == len(rows)
    # What its row had passed in the other branch counts only where that was a phase of its own.
    assert steps["draft"]["in"] == ROWS - (0 if phases else len(rows))
    monkeypatch.delenv("PENSTOCK_TEST_FAIL")
    assert start(tmp_path, command="retry", target="out").wait() == 0
    assert sorted(output_lines(tmp_path), key=lambda row: row["id"]) == undisturbed
    steps = summary(tmp_path)["steps"]
    passed = len(undisturbed)
    assert {steps[name]["out"] for name in ("join", "last")} == {passed}
    assert not dead(tmp_path)
    assert steps["draft"]["in"] <= ROWS and steps["final"]["in"] <= ROWS
    if phases:
        assert (steps["draft"]["in"], steps["odd"]["out"], steps["see"]["in"]) == (ROWS, passed, passed)
