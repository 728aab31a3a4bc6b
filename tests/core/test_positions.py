"""Positions: one watermark and a ring of flags, against a set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.flow.positions import Positions
from penstock.errors import InvariantError


def first_missing(ended: set[int]) -> int:
    position = 0
    while position in ended:
        position += 1
    return position


@given(st.integers(1, 40), st.data())
def test_watermark_is_the_first_that_has_not_ended(reach: int, data: st.DataObject) -> None:
    positions = Positions(0, (), reach)
    ended: set[int] = set()
    for _ in range(data.draw(st.integers(0, 30))):
        free = [at for at in range(positions.watermark, positions.watermark + reach) if at not in ended]
        batch = data.draw(st.lists(st.sampled_from(free), unique=True))
        positions.mark(batch)
        ended.update(batch)
        assert positions.watermark == first_missing(ended)
        assert positions.ended_above() == sorted(at for at in ended if at >= positions.watermark)
        assert positions.ended_count == len(ended)


@given(st.integers(0, 1000), st.sets(st.integers(0, 31), max_size=32))
def test_taking_up_equals_having_marked(watermark: int, above: set[int]) -> None:
    taken_up = Positions(watermark, sorted(watermark + at for at in above), 32)
    assert taken_up.watermark == watermark + first_missing(above)
    assert taken_up.ended_count == watermark + len(above)


@pytest.mark.parametrize("positions", [[3, 3], [2], [-1], [10], [99]])
def test_twice_or_out_of_reach_is_refused(positions: list[int]) -> None:
    ring = Positions(0, (0, 1, 2), 7)
    assert ring.watermark == 3
    with pytest.raises(InvariantError, match="watermark"):
        ring.mark(positions)


def test_a_full_ring_empties_at_once() -> None:
    ring = Positions(5, (), 8)
    ring.mark(range(6, 13))
    assert (ring.watermark, ring.ended_above()) == (5, list(range(6, 13)))
    ring.mark([5])
    assert (ring.watermark, ring.ended_above()) == (13, [])
    ring.mark(range(13, 21))
    assert ring.watermark == 21
