"""Tally: totals of plain rows and of families, and the judgement of max_dead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.events import FlowCounts
from penstock.core.flow.families import Family
from penstock.core.flow.tally import Tally
from penstock.core.shape import Progress

END = st.tuples(st.sampled_from(("finished", "dead", "filtered")), st.integers(0, 2))


@given(st.lists(END, max_size=40))
def test_plain_rows_by_where_they_ended(ends: list[tuple[str, int]]) -> None:
    tally = Tally(Progress(), 3, 0)
    steps = [[0, 0, 0] for _ in range(3)]
    for how, at in ends:
        last = 2 if how == "finished" else at
        for step in range(last + 1):
            steps[step][0] += 1
            steps[step][1] += step < last or how == "finished"
        steps[last][2] += how == "dead"
        if how == "finished":
            tally.finished(1)
        else:
            tally.ended_early(at, dead=how == "dead", counted=False)
    counts = tally.counts()
    assert [list(step) for step in counts.steps] == steps
    found = [how for how, _ in ends]
    assert (counts.out, counts.dead, counts.filtered) == tuple(map(found.count, ("finished", "dead", "filtered")))
    assert counts.ended_sources == len(ends)
    assert counts.dead_sources == counts.dead


def test_a_family_is_one_source_row() -> None:
    tally = Tally(Progress(), 2, 0)
    tally.family(Family(0, [[1, 1, 0], [3, 1, 2]], finished=[10], dead=[11, 12], filtered=1), counted=False)
    counts = tally.counts()
    assert (counts.out, counts.dead, counts.filtered, counts.dead_sources, counts.ended_sources) == (1, 2, 1, 1, 1)
    assert counts.steps == ((1, 1, 0), (3, 1, 2))


def test_a_source_row_counts_once_in_all_phases() -> None:
    tally = Tally(Progress(dead=2, dead_sources=2), 2, 0)
    tally.family(Family(0, [[2, 1, 1], [0, 0, 0]], dead=[10]), counted=True)
    tally.ended_early(0, dead=True, counted=True)
    tally.ended_early(0, dead=True, counted=False)
    counts = tally.counts()
    assert (counts.dead, counts.dead_sources, counts.ended_sources) == (5, 3, 3)


@given(rows=st.integers(1, 10**7), percent=st.integers(1, 99))
def test_exactly_at_the_limit_is_not_too_many(rows: int, percent: int) -> None:
    """Also where the fraction is what is left for a later phase of what may die in all."""
    allowed = rows * percent // 100
    fraction = allowed / rows
    for dead, too_many in ((allowed, False), (allowed + 1, True)):
        tally = Tally(Progress(dead=dead, dead_sources=dead), 1, rows)
        assert tally.too_many_dead(fraction, 100, at_end=True) == too_many
        before = allowed // 3
        rest = Tally(Progress(dead=dead - before, dead_sources=dead - before), 1, rows)
        share = max(0.0, fraction * (2 * rows) - allowed - before) / rows
        assert rest.too_many_dead(share, 100, at_end=True) == too_many


def test_rejected_rows_move_from_out_to_dead() -> None:
    tally = Tally(Progress(), 1, 0)
    tally.finished(5)
    tally.rejected(3, 2)
    counts = tally.counts()
    assert (counts.out, counts.dead, counts.dead_sources, counts.ended_sources) == (2, 3, 2, 5)


def test_a_resume_adds_to_what_was() -> None:
    before = Progress(out=7, dead=2, filtered=1, dead_sources=2, steps=((10, 8, 2),))
    tally = Tally(before, 1, 10)
    tally.finished(1)
    tally.unreadable()
    assert tally.counts() == FlowCounts(
        rows_in=10, out=8, dead=3, filtered=1, dead_sources=3, ended_sources=12, steps=((11, 9, 2),)
    )


def test_a_count_is_judged_at_once() -> None:
    tally = Tally(Progress(), 1, 0)
    tally.unreadable()
    assert not tally.too_many_dead(1, 100, at_end=False)
    tally.unreadable()
    assert tally.too_many_dead(1, 100, at_end=False)


def test_a_fraction_is_judged_from_some_rows_on_and_at_the_end() -> None:
    tally = Tally(Progress(), 1, 0)
    tally.unreadable()
    tally.finished(8)
    assert not tally.too_many_dead(0.1, 10, at_end=False)
    assert tally.too_many_dead(0.1, 10, at_end=True)
    tally.finished(1)
    assert not tally.too_many_dead(0.1, 10, at_end=False), "one of ten is the limit, not beyond it"
    tally.unreadable()
    assert tally.too_many_dead(0.1, 10, at_end=False)


def test_no_row_at_all_is_not_too_many() -> None:
    assert not Tally(Progress(), 1, 0).too_many_dead(0.0, 100, at_end=True)
