"""The algebra of counts: differences add up, and rows that could not be encoded move from one end to another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.counts import Counts, rejection

NUMBER = st.integers(0, 1000)
STEPS = st.dictionaries(st.sampled_from("abc"), st.tuples(NUMBER, NUMBER, NUMBER), max_size=3)
COUNTS = st.builds(Counts, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, STEPS)


def same(left: Counts, right: Counts) -> bool:
    """Equal but for steps that count nothing."""
    rest = left - right
    return rest == Counts(steps=dict.fromkeys(rest.steps, (0, 0, 0)))


@given(COUNTS, COUNTS, COUNTS)
def test_counts_add_up_in_any_order(a: Counts, b: Counts, c: Counts) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Counts() == a


@given(COUNTS, COUNTS)
def test_a_difference_leads_back(a: Counts, b: Counts) -> None:
    assert same(a + (b - a), b)
    assert same((a + b) - b, a)


@given(COUNTS, COUNTS)
def test_steps_stay_in_the_order_of_the_first(a: Counts, b: Counts) -> None:
    assert list((a + b).steps)[: len(a.steps)] == list(a.steps)


class Drawn:
    """Families of a batch: of each source row, how many rows were output, are rejected, and died before."""

    def __init__(self, families: list[tuple[int, int, int]]) -> None:
        self.families = [(out, min(rejected, out), dead) for out, rejected, dead in families]

    def counts(self, *, carries: bool, after: bool) -> Counts:
        """Of the batch, counted row by row; after: with rejected rows among the dead."""
        total = Counts()
        for out, rejected, dead in self.families:
            out, dead = (out - rejected, dead + rejected) if after else (out, dead)
            total += Counts(
                out=0 if carries else out,
                dead=dead,
                dead_sources=int(dead > 0),
                ended_sources=int(not (carries and out)),
            )
        return total

    def positions(self, which: int) -> list[int]:
        return [position for position, family in enumerate(self.families) for _ in range(family[which])]


SMALL = st.integers(0, 3)


@given(st.lists(st.tuples(SMALL, SMALL, SMALL), max_size=8), st.booleans())
def test_rejected_rows_are_counted_as_if_they_had_died(families: list[tuple[int, int, int]], carries: bool) -> None:
    batch = Drawn(families)
    moved = rejection(batch.positions(1), batch.positions(0), batch.positions(2), carries=carries)
    assert batch.counts(carries=carries, after=False) + moved == batch.counts(carries=carries, after=True)
