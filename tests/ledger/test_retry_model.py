"""Retries over drawn sources, in which files are named several times, and drawn fates: each row once, as in a run in
which nothing has failed."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from retry_model import CODES, NEVER, STEPS, Drawn, Model, pipeline_over

from example_counts import examples
from penstock.core.counts import Counts
from penstock.ledger.view import read_run
from penstock.report.facts import RunFacts
from penstock.runtime.retry import retry as retrying
from penstock.runtime.run.api import nothing_to_do
from penstock.runtime.run.options import Listener, RunOptions
from penstock.runtime.run.session import Session
from penstock.runtime.watch.signals import Interrupts
from penstock.spec.pipeline import Pipeline

FILES = ("a.jsonl", "b.jsonl", "empty.jsonl", "c.jsonl")
CUTS = st.sampled_from([(), (2, len(STEPS)), (4, len(STEPS)), (1, 3, len(STEPS))])
DRAWN = st.builds(Drawn, st.integers(0, 10_000), st.sampled_from([0.1, 0.3]), CUTS)


def write(folder: Path, rows: int) -> None:
    """Files of different lengths with equal rows; one line of each is no JSON."""
    for name in FILES:
        count = 0 if name.startswith("empty") else rows + ord(name[0]) - ord("a")
        lines = [f'{{"n": {n}, "text": "row {n}"}}\n' if n != 2 else '{"n": \n' for n in range(count)]
        (folder / name).write_text("".join(lines))


def run_again(
    pipeline: Pipeline, drawn: Drawn, round: int, codes: tuple[str, ...], exit_code: int = 0
) -> dict[str, int]:
    class InModel(retrying._Retry):
        def _run(self, lent: Session, listener: Listener) -> tuple[RunFacts, int]:
            Model(pipeline, drawn, round, self.selection).run(self._retry.folder)
            return nothing_to_do(pipeline, self._out_dir, lent.clock), 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrying, "_Retry", InModel)
        result = retrying.retry(pipeline, RunOptions(listener=lambda facts: None, check=False), codes)
    assert result.exit_code == exit_code
    return result.summary.get("retried", {"rows": 0, "out": 0, "dead": 0})


def test_a_stop_between_a_retry_that_was_begun_and_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has taken its place, the rest is as it was, and the same command does it."""
    write(tmp_path, 5)
    pipeline, drawn = pipeline_over(tmp_path, ["a.jsonl", "c.jsonl", "a.jsonl"]), Drawn(7, 0.3, ())
    Model(pipeline, drawn, NEVER).run(tmp_path / "never")
    Model(pipeline, drawn, 0).run(tmp_path / "out")
    begun = retrying._Retry(pipeline, RunOptions(), tmp_path / "out", (), ("refused",))
    before = read_run(tmp_path / "out").counts.dead
    with monkeypatch.context() as patch:
        patch.setattr(Interrupts, "asked", True)
        did = run_again(pipeline, drawn, NEVER, (), exit_code=75)
    assert did["rows"] == len(begun.selection.chosen) > 0
    left = read_run(tmp_path / "out").counts.dead
    assert left == before - did["rows"] + did["dead"]
    assert run_again(pipeline, drawn, NEVER, ())["rows"] == left - did["dead"], "what died again was tried already"
    assert content(tmp_path / "out") == content(tmp_path / "never")


def content(out: Path) -> tuple[list[str], list[tuple[object, ...]], Counts]:
    rows = [line for part in sorted((out / "data").iterdir()) for line in part.read_text().splitlines()]
    dead = [row for part in sorted((out / "dead").iterdir()) for row in pq.read_table(part).to_pylist()]
    lost = sorted((row["source"], row["row"], tuple(row["path"]), row["step"], row["code"]) for row in dead)
    return rows, lost, read_run(out).counts


@settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    names=st.lists(st.sampled_from(FILES), min_size=1, max_size=4),
    rows=st.integers(1, 5),
    drawn=DRAWN,
    asked=st.lists(st.lists(st.sampled_from(CODES), max_size=2).map(tuple), max_size=3),
)
def test_each_row_is_there_once(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    rows: int,
    drawn: Drawn,
    asked: list[tuple[str, ...]],
) -> None:
    folder = tmp_path_factory.mktemp("model")
    write(folder, rows)
    pipeline = pipeline_over(folder, names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.ledger.joining.MAX_TAIL", 3)
        Model(pipeline, drawn, NEVER).run(folder / "never")
        Model(pipeline, drawn, 0).run(folder / "out")
        for round, codes in enumerate([*asked, ()], NEVER - len(asked)):
            before = read_run(folder / "out").counts
            did = run_again(pipeline, drawn, round, codes)
            after = read_run(folder / "out").counts
            assert did["out"] == after.out - before.out
            assert did["rows"] == before.dead - after.dead + did["dead"]
    assert content(folder / "out") == content(folder / "never")
