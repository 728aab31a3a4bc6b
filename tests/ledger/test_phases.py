"""Phases in the ledger: what one finishes, the next one reads; the output is that of one stretch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_support import Builder, open_ledger
from phase_support import PhasedCoordinator, assert_phased_complete, expected, open_phased, read_all

from example_counts import examples
from penstock.core.counts import Counts
from penstock.errors import InvariantError
from penstock.ledger import publish, read_run, stage
from penstock.ledger.base import CommitBatch, Finished, Origin
from penstock.ledger.entry import SegmentFact
from penstock.ledger.publish import tiers

TOTAL = 60


class Stop(Exception):
    pass


@settings(max_examples=examples(30), deadline=None)
@given(part_rows=st.integers(1, 9), batch_rows=st.integers(1, 40), data=st.data())
def test_what_a_phase_has_left_is_read_from_anywhere(part_rows: int, batch_rows: int, data: st.DataObject) -> None:
    """All rows of a source row come together, wherever segments are cut, however few rows are asked for."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(stage, "PART_ROWS", part_rows),
        mock.patch("os.fsync"),
        open_phased(Path(folder) / "out") as ledger,
    ):
        while ledger.state.phase == 0:
            _run_for(ledger, 1, 0, batch_rows)
        everything = read_all(ledger.inputs(), 0, 1000)
        assert [rows[0][1].position for rows in everything] == sorted({rows[0][1].position for rows in everything})
        assert any(len(rows) > 1 for rows in everything)
        source = ledger.inputs()
        for _ in range(3):
            start = data.draw(st.integers(0, len(everything)))
            assert read_all(source, start, data.draw(st.integers(1, 20))) == everything[start:]
        assert source.total_rows == len(everything)
        chunk = source.read(2, lambda position: position % 2 == 0, 1000)
        assert chunk is not None
        places = [*chunk.positions, *(family.position for family in chunk.families)]
        assert sorted(places) == list(range(3, len(everything), 2))


def test_three_phases_leave_what_one_stretch_would(tmp_path: Path) -> None:
    with open_phased(tmp_path / "out") as ledger:
        PhasedCoordinator(ledger, TOTAL).run()
    assert_phased_complete(tmp_path / "out", TOTAL)
    view = read_run(tmp_path / "out")
    assert (view.finished, view.run.cut, view.counts.out) == (True, (1, 2, 3), len(expected(TOTAL)[0]))
    assert view.watermark == TOTAL  # a higher limit goes on behind the rows that were taken in


@settings(max_examples=examples(40), deadline=None)
@given(lives=st.lists(st.integers(0, 9), max_size=8), part_rows=st.integers(1, 30), batch_rows=st.integers(5, 40))
def test_taken_up_after_any_commits_it_goes_on_in_its_phase(lives: list[int], part_rows: int, batch_rows: int) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(publish, "MAX_SEGMENTS", 3),
        mock.patch.object(stage, "PART_ROWS", part_rows),
        mock.patch("os.fsync"),
    ):
        out = Path(folder) / "out"
        for seed, commits in enumerate(lives):
            with open_phased(out) as ledger:
                _run_for(ledger, commits, seed, batch_rows)
        with open_phased(out) as ledger:
            PhasedCoordinator(ledger, TOTAL).run(batch_rows=batch_rows)
        assert_phased_complete(out, TOTAL)


def _run_for(ledger: object, commits: int, seed: int, batch_rows: int) -> None:
    """Leave the ledger after so many commits."""
    left = [commits]
    commit = ledger.commit  # type: ignore[attr-defined]

    def counted(batch: CommitBatch) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise Stop
        return commit(batch)

    with mock.patch.object(ledger, "commit", counted):
        try:
            PhasedCoordinator(ledger, TOTAL).run(batch_rows=batch_rows, seed=seed)  # type: ignore[arg-type]
        except Stop:
            pass


def test_a_resume_keeps_the_cut_of_the_beginning(tmp_path: Path) -> None:
    open_phased(tmp_path / "out").close()
    with open_ledger(tmp_path / "out", cut=(3,), table=None) as ledger:
        assert (ledger.state.phase, ledger.phases) == (0, 3)
        with pytest.raises(InvariantError, match="before phase 0 began"):
            ledger.commit(CommitBatch([], [], [], 0, None, Counts()))


def test_a_row_of_the_first_phase_is_its_own_origin(tmp_path: Path) -> None:
    """Rows that are run again bring theirs: a run over some rows of a source, and one over all of them, carry alike."""
    with open_phased(tmp_path / "out") as ledger:
        ledger.begin_phase(Builder)
        rows = [Finished(0, (), {"n": 0, "text": ""}, Origin(7, (), "y", 7)), Finished(1, (2,), {"n": 1, "text": ""})]
        ledger.commit(CommitBatch(rows, [], [0, 1], 2, None, Counts(), 2, True))
        (first,), (second,) = read_all(ledger.inputs(), 0, 7)
    assert first[1] == Origin(7, (), "y", 7)
    assert second[1] == Origin(1, (2,), "", 1)


def test_a_row_that_no_column_holds_dies_in_its_phase_and_is_counted(tmp_path: Path) -> None:
    with open_phased(tmp_path / "out") as ledger:
        ledger.begin_phase(Builder)
        rows = [
            Finished(0, (), {"n": 0, "text": ""}, Origin(0, (), "x", 40)),
            Finished(1, (2,), {"n": "no", "text": ""}, Origin(1, (2,), "x", 41)),
        ]
        receipt = ledger.commit(CommitBatch(rows, [], [0, 1], 2, None, Counts(rows_in=2)))
    (dead,) = receipt.rejected
    assert (dead.source, dead.row, dead.path) == ("x", 41, [2])
    assert receipt.counts == Counts(rows_in=2, dead=1, dead_sources=1, ended_sources=1)


def test_merging_leaves_large_segments_alone() -> None:
    def facts(*sizes: int) -> tuple[SegmentFact, ...]:
        return tuple(SegmentFact(str(number), 1, size, "", 0, 0) for number, size in enumerate(sizes))

    kept, small = tiers(facts(100, 10, 10, 10))
    assert ([fact.bytes for fact in kept], [fact.bytes for fact in small]) == ([100], [10, 10, 10])
    kept, small = tiers(facts(10, 10, 10))
    assert (kept, len(small)) == ((), 3)
