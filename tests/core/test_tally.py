"""Tally: totals of plain rows and of families, and the judgement of max_dead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.counts import Counts
from penstock.core.flow.families import Family
from penstock.core.flow.tally import Tally
from penstock.core.shape import FlowLimits, FlowShape, Progress, StepShape

NAMES = ("a", "b", "c")


def tally_of(steps: int = 1, progress: Progress | None = None, ended: int = 0, *, carries: bool = False) -> Tally:
    shape = FlowShape(tuple(StepShape(name) for name in NAMES[:steps]), FlowLimits(), carries=carries)
    return Tally(shape, progress or Progress(), ended)


END = st.tuples(st.sampled_from(("finished", "dead", "filtered")), st.integers(0, 2))


@given(st.lists(END, max_size=40))
def test_plain_rows_by_where_they_ended(ends: list[tuple[str, int]]) -> None:
    tally = tally_of(3)
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
            tally.ended_early(at, dead=how == "dead", already_dead=False)
    counts = tally.counts()
    assert [list(step) for step in counts.steps.values()] == steps
    found = [how for how, _ in ends]
    assert (counts.out, counts.dead, counts.filtered) == tuple(map(found.count, ("finished", "dead", "filtered")))
    assert counts.ended_sources == len(ends)
    assert counts.dead_sources == counts.dead


def test_a_family_is_one_source_row() -> None:
    tally = tally_of(2)
    tally.family(Family(0, [[1, 1, 0], [3, 1, 2]], finished=[10], dead=[11, 12], filtered=1), already_dead=False)
    counts = tally.counts()
    assert (counts.out, counts.dead, counts.filtered, counts.dead_sources, counts.ended_sources) == (1, 2, 1, 1, 1)
    assert counts.steps == {"a": (1, 1, 0), "b": (3, 1, 2)}


def test_a_source_row_counts_once_in_all_phases() -> None:
    tally = tally_of(2, Progress(counts=Counts(dead=2, dead_sources=2)))
    tally.family(Family(0, [[2, 1, 1], [0, 0, 0]], dead=[10]), already_dead=True)
    tally.ended_early(0, dead=True, already_dead=True)
    tally.ended_early(0, dead=True, already_dead=False)
    counts = tally.counts()
    assert (counts.dead, counts.dead_sources, counts.ended_sources) == (5, 3, 3)


@given(rows=st.integers(1, 10**7), percent=st.integers(1, 99))
def test_exactly_at_the_limit_is_not_too_many(rows: int, percent: int) -> None:
    """Also where the fraction is what is left for a later phase of what may die in all."""
    allowed = rows * percent // 100
    fraction = allowed / rows
    before = Counts(rows_in=rows, dead=allowed // 3, dead_sources=allowed // 3)
    for dead, too_many in ((allowed, False), (allowed + 1, True)):
        counts = Counts(dead=dead, dead_sources=dead)
        assert (
            tally_of(progress=Progress(counts=counts), ended=rows).too_many_dead(fraction, 100, at_end=True) == too_many
        )
        left = max(1, rows // 2)
        later = tally_of(progress=Progress(counts=counts, before=before, rows=left), ended=left)
        assert later.too_many_dead(fraction, 100, at_end=True) == too_many


def test_a_count_is_of_all_phases() -> None:
    died = Counts(rows_in=9, dead=2, dead_sources=2)
    tally = tally_of(progress=Progress(counts=died, before=died, rows=7))
    assert not tally.too_many_dead(2, 100, at_end=False)
    tally.ended_early(0, dead=True, already_dead=False)
    assert tally.too_many_dead(2, 100, at_end=False)


def test_rejected_rows_move_from_out_to_dead() -> None:
    tally = tally_of()
    tally.finished(5)
    tally.rejected(Counts(out=-3, dead=3, dead_sources=2))
    counts = tally.counts()
    assert (counts.out, counts.dead, counts.dead_sources, counts.ended_sources) == (2, 3, 2, 5)


def test_rows_for_a_next_phase_are_no_output_and_have_not_ended() -> None:
    tally = tally_of(2, carries=True)
    tally.finished(3)
    tally.family(Family(0, [[1, 1, 0], [2, 1, 1]], finished=[10], dead=[11]), already_dead=False)
    tally.family(Family(1, [[1, 1, 0], [1, 0, 0]], filtered=1), already_dead=False)
    tally.ended_early(1, dead=False, already_dead=False)
    counts = tally.counts()
    assert (counts.out, counts.dead, counts.filtered, counts.dead_sources, counts.ended_sources) == (0, 1, 2, 1, 2)
    assert tally.ended == 6


def test_a_resume_adds_to_what_was() -> None:
    before = Counts(rows_in=11, out=7, dead=2, filtered=1, dead_sources=2, ended_sources=10, steps={"a": (10, 8, 2)})
    tally = tally_of(progress=Progress(counts=before), ended=10)
    tally.finished(1)
    tally.unreadable()
    assert tally.counts() == Counts(
        rows_in=10, out=8, dead=3, filtered=1, dead_sources=3, ended_sources=12, steps={"a": (11, 9, 2)}
    )


def test_a_count_is_judged_at_once() -> None:
    tally = tally_of()
    tally.unreadable()
    assert not tally.too_many_dead(1, 100, at_end=False)
    tally.unreadable()
    assert tally.too_many_dead(1, 100, at_end=False)


def test_a_fraction_is_judged_from_some_rows_on_and_at_the_end() -> None:
    tally = tally_of()
    tally.unreadable()
    tally.finished(8)
    assert not tally.too_many_dead(0.1, 10, at_end=False)
    assert tally.too_many_dead(0.1, 10, at_end=True)
    tally.finished(1)
    assert not tally.too_many_dead(0.1, 10, at_end=False), "one of ten is the limit, not beyond it"
    tally.unreadable()
    assert tally.too_many_dead(0.1, 10, at_end=False)


def test_no_row_at_all_is_not_too_many() -> None:
    assert not tally_of().too_many_dead(0.0, 100, at_end=True)
