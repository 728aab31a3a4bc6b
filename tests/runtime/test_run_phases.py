"""Runs whose models take turns, as processes: what they load, what they leave, and being killed in each phase."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
import yaml
from run_support import catch, output_lines, run, start, summary, write_rows

from command_server import Command
from penstock.errors import RunMismatch
from penstock.ledger.base import CommitBatch, Receipt
from penstock.ledger.ledger import Ledger
from penstock.ledger.view import RunView, read_run
from penstock.runtime.run.api import RunOptions
from penstock.runtime.run.api import run as run_here
from penstock.runtime.watch.signals import Interrupts
from penstock.spec.load import load_pipeline

pytestmark = pytest.mark.process

ROWS = 400
STEPS = [
    {"generate": {"model": "a", "prompt": "{{ question }}", "output": "one", "max_tokens": 3}},
    {"generate": {"model": "b", "prompt": "{{ one }}", "output": "two", "max_tokens": 3, "temperature": 1.0}},
    {"filter": {"expr": "id % 7 != 3"}},
    {"generate": {"model": "a", "prompt": "{{ two }}", "output": "three", "max_tokens": 3}},
]


def write(folder: Path, *, phases: bool = True, replicas: int = 1, a: Any = None, b: Any = None, **top: Any) -> None:
    """One replica of each: of two, one may not be up yet when a phase has ended, and is not counted as loaded."""
    write_rows(folder, ROWS)
    models = {
        "a": {
            "ref": "mock:a",
            "replicas": replicas,
            "load": "eager",
            "engine_options": {"slots": 4, "ms_per_row": 4, **(a or {})},
        },
        "b": {"ref": "mock:b", "engine_options": {"slots": 4, "ms_per_row": 2, **(b or {})}},
    }
    written = {
        "models": models,
        "source": {"path": "rows.jsonl"},
        "steps": STEPS,
        "sink": {"path": "out", "format": "jsonl"},
        "commit_every_s": 0.1,
        "resources": {"load_strategy": "phases" if phases else "together"},
        **top,
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(written, sort_keys=False))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The same pipeline with all models loaded at once."""
    folder = tmp_path_factory.mktemp("together")
    write(folder, phases=False)
    assert run(folder) == 0
    return output_lines(folder)


def test_three_phases_write_what_one_does(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    write(tmp_path, replicas=2)
    assert run(tmp_path) == 0
    assert output_lines(tmp_path) == undisturbed
    told = summary(tmp_path)
    filtered = sum(number % 7 == 3 for number in range(ROWS))
    assert told["rows"] == {"in": ROWS, "out": ROWS - filtered, "dead": 0, "filtered": filtered, "reused": 0}
    assert 2 <= told["models"]["a"]["loads"] <= 4 and told["models"]["b"]["loads"] == 1
    assert all(replica["restarts"] == 0 for model in told["models"].values() for replica in model["replicas"])
    assert told["steps"]["generate-2"] == {"in": ROWS, "out": ROWS, "dead": 0}
    assert told["steps"]["generate-3"] == {"in": ROWS - filtered, "out": ROWS - filtered, "dead": 0}


def test_an_engine_that_can_sleep_is_loaded_once(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    write(tmp_path, a={"wake_ms": 1})
    assert run(tmp_path) == 0
    assert output_lines(tmp_path) == undisturbed
    assert {name: model["loads"] for name, model in summary(tmp_path)["models"].items()} == {"a": 1, "b": 1}


def view(folder: Path) -> RunView | None:
    try:
        return read_run(folder / "out")
    except RunMismatch:
        return None


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_killed_in_a_phase_it_goes_on_there(tmp_path: Path, phase: int, undisturbed: list[dict[str, Any]]) -> None:
    def begin(slower: int) -> Command:
        write(tmp_path, a={"ms_per_row": 20 * slower}, b={"ms_per_row": 20 * slower})
        return start(tmp_path)

    def reached() -> bool:
        seen = view(tmp_path)
        return seen is not None and seen.phase == phase and 40 < seen.watermark < 300

    process = catch(tmp_path, begin, reached, f"commits in phase {phase}")
    process.kill()
    process.wait()
    write(tmp_path)
    assert run(tmp_path) == 0
    assert output_lines(tmp_path) == undisturbed
    told = summary(tmp_path)
    assert told["rows"]["in"] == ROWS and told["rows"]["out"] == len(undisturbed)
    loads = {name: model["loads"] for name, model in told["models"].items()}
    assert loads == [{"a": 2, "b": 1}, {"a": 1, "b": 1}, {"a": 1, "b": 0}][phase]


def test_stopped_in_good_order_and_a_limit_that_is_raised(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    write(tmp_path)
    assert run(tmp_path, "--limit", "150") == 0
    assert summary(tmp_path)["rows"]["in"] == 150
    assert output_lines(tmp_path) == [row for row in undisturbed if row["id"] < 150]
    assert run(tmp_path, "--limit", "150") == 0
    assert {model["loads"] for model in summary(tmp_path)["models"].values()} == {0}
    assert run(tmp_path) == 0
    assert output_lines(tmp_path) == undisturbed
    told = summary(tmp_path)["rows"]
    assert (told["in"], told["out"], told["reused"]) == (ROWS, len(undisturbed), 150)


def test_the_dead_of_every_phase_say_where_they_were(tmp_path: Path) -> None:
    write(tmp_path, a={"fail_on": "what is 11?"}, b={"fail_on": "never"}, max_dead=50)
    assert run(tmp_path) == 0
    told = summary(tmp_path)["rows"]
    assert told["dead"] == 1 and told["out"] + told["filtered"] + told["dead"] == ROWS


def test_max_dead_counts_over_all_phases(tmp_path: Path) -> None:
    """Two rows in a hundred die in the first phase, and all the others in the second: that is too many."""
    write(tmp_path, a={"fail_on": "what is 1?"}, b={"fail_on": " "}, max_dead=0.05)
    assert run(tmp_path) == 3
    told = summary(tmp_path)
    assert told["status"] == "too_many_dead" and told["models"]["a"]["loads"] == 1


def test_a_lazy_model_that_no_row_reaches_is_not_loaded(tmp_path: Path) -> None:
    write(tmp_path, phases=False)
    text = (tmp_path / "pipeline.yaml").read_text().replace("id % 7 != 3", "id < 0")
    text = text.replace("model: a\n    prompt: '{{ two }}'", "model: c\n    prompt: '{{ two }}'")
    text = text.replace("models:\n", "models:\n  c: {ref: 'mock:c', replicas: 3}\n")
    (tmp_path / "pipeline.yaml").write_text(text)
    assert run(tmp_path) == 0
    told = summary(tmp_path)
    assert told["models"]["c"]["loads"] == 0 and told["rows"]["filtered"] == ROWS


def test_the_cut_of_the_beginning_is_kept(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    """Begun in phases, gone on with where the models fit together: the phases stay, and so does the output."""
    write(tmp_path)
    assert run(tmp_path, "--limit", "90") == 0
    write(tmp_path, phases=False)
    assert run(tmp_path) == 0
    assert output_lines(tmp_path) == undisturbed
    seen = view(tmp_path)
    assert seen is not None and seen.run.cut == (1, 3, 4)


def test_a_start_that_runs_out_of_memory_steps_down_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    import msgspec

    from penstock.planner.result import Rung
    from penstock.planning import targets as places

    original = places.plan_here

    def with_ladder(*arguments: Any) -> Any:
        """The mock engine has no memory to plan: give its replicas a ladder."""
        made = original(*arguments)
        rungs = tuple(Rung(message=f"batches of {seqs} requests", max_num_seqs=seqs) for seqs in (256, 128, 64))
        replicas = [
            dataclasses.replace(each, rungs=rungs, config=msgspec.structs.replace(each.config, max_num_seqs=512))
            for each in made.replicas
        ]
        return dataclasses.replace(made, replicas=tuple(replicas))

    monkeypatch.setattr(places, "plan_here", with_ladder)
    monkeypatch.chdir(tmp_path)
    write(tmp_path, phases=False, b={"load_oom_over_seqs": 128})
    result = run_here(
        load_pipeline((tmp_path / "pipeline.yaml").read_text(), "pipeline.yaml"), RunOptions(display="none")
    )
    assert result.exit_code == 0
    assert any(
        "ran out of memory while loading; retrying with batches of 128" in note for note in result.facts.warnings
    )
    assert result.summary["models"]["b"]["replicas"][0]["restarts"] == 0


THREE = "def three(row):\n    for k in range(3):\n        yield {'k': k}\n"
FAMILIES = [
    {"generate": {"model": "a", "prompt": "{{ question }}", "output": "one", "max_tokens": 3, "temperature": 1.0}},
    {"expand": {"function": "made_steps:three"}},
    {"generate": {"model": "b", "prompt": "{{ one }} {{ id }}.{{ k }}", "output": "two", "temperature": 1.0}},
    {"generate": {"model": "a", "prompt": "{{ two }} {{ id }}.{{ k }}", "output": "three"}},
]
LOST = {number for number in range(ROWS) if number % 10 == 7}


def write_families(folder: Path, *, phases: bool, slower: int = 1, **top: Any) -> None:
    """Of each row in LOST a child dies in the second phase, and of some another one in the third."""
    (folder / "made_steps.py").write_text(THREE)
    options = {"fail_on": "17.1", "ms_per_row": slower}, {"fail_on": "7.0", "ms_per_row": slower}
    write(folder, phases=phases, a=options[0], b=options[1], max_dead=len(LOST), window={"rows": 12}, **top)
    text = yaml.safe_load((folder / "pipeline.yaml").read_text())
    (folder / "pipeline.yaml").write_text(yaml.safe_dump({**text, "steps": FAMILIES}, sort_keys=False))


def dead(folder: Path) -> list[tuple[str, int, list[int], str]]:
    rows = ds.dataset(folder / "out" / "dead").to_table().to_pylist()
    return sorted((row["source"], row["row"], row["path"], row["step"]) for row in rows)


def test_a_source_row_is_one_in_every_phase_however_many_it_became(tmp_path: Path) -> None:
    """What is read, written, counted and judged is what it would be without phases, also with a window of a few rows
    and after a kill."""
    together, apart = tmp_path / "together", tmp_path / "apart"
    together.mkdir()
    write_families(together, phases=False)
    assert run(together) == 0
    apart.mkdir()

    def begin(slower: int) -> Command:
        write_families(apart, phases=True, slower=4 * slower)
        return start(apart)

    def reached() -> bool:
        seen = view(apart)
        return seen is not None and seen.phase == 1 and 40 < seen.watermark < 300

    process = catch(apart, begin, reached, "commits in the second phase")
    process.kill()
    process.wait()
    assert run(apart) == 0
    assert output_lines(apart) == output_lines(together) and dead(apart) == dead(together)
    assert len(output_lines(apart)) + len(dead(apart)) == 3 * ROWS
    counts = read_run(apart / "out").counts
    assert counts == read_run(together / "out").counts
    assert (counts.ended_sources, counts.dead_sources) == (ROWS, len(LOST))
    told = summary(apart)
    assert told["rows"] == {**summary(together)["rows"], "reused": told["rows"]["reused"]}
    assert told["steps"] == summary(together)["steps"]


def test_a_signal_that_comes_with_the_last_commit_of_a_phase_stops_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next phase; or the first one again, for the rows that a life before left out under its limit."""
    write(tmp_path, a={"ms_per_row": 0}, b={"ms_per_row": 0})
    monkeypatch.chdir(tmp_path)
    pipeline = load_pipeline((tmp_path / "pipeline.yaml").read_text(), "pipeline.yaml")
    commit, pending, told = Ledger.commit, Interrupts.pending, threading.Event()
    strikes = [0, 2]  # the phases with whose last commit a signal comes

    def telling(interrupts: Interrupts) -> str:
        reason = pending(interrupts)
        if reason:
            told.set()
        return reason

    def signalled(ledger: Ledger, batch: CommitBatch) -> Receipt:
        if batch.final and strikes and ledger.entry.phase == strikes[0]:
            strikes.pop(0)
            told.clear()
            os.kill(os.getpid(), signal.SIGTERM)
            assert told.wait(60)
        return commit(ledger, batch)

    monkeypatch.setattr(Interrupts, "pending", telling)
    monkeypatch.setattr(Ledger, "commit", signalled)
    for limit in (100, None):
        stopped = run_here(pipeline, RunOptions(display="none", limit=limit, check=False))
        assert (stopped.exit_code, stopped.facts.status) == (75, "stopped")
    assert not strikes and read_run(tmp_path / "out").watermark == 100
    assert run_here(pipeline, RunOptions(display="none")).exit_code == 0
    assert len(output_lines(tmp_path)) == sum(number % 7 != 3 for number in range(ROWS))
