"""Lengths: what share of its limit an output uses, learned per step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.dispatch.lengths import Lengths


def test_the_limit_while_nothing_is_known() -> None:
    assert Lengths().expected(0, 128) == 128


def test_steps_learn_apart() -> None:
    lengths = Lengths()
    lengths.learn(0, 25, 100)
    assert lengths.expected(0, 100) == 25
    assert lengths.expected(1, 100) == 100


def test_old_lengths_fade() -> None:
    lengths = Lengths()
    lengths.learn(0, 100, 100)
    for _ in range(60):
        lengths.learn(0, 20, 100)
    assert 20 <= lengths.expected(0, 100) <= 22


def test_steps_without_output_teach_nothing() -> None:
    lengths = Lengths()
    lengths.learn(0, 0, 0)
    assert lengths.ratio == {}
    assert lengths.expected(0, 0) == 0


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 200)), max_size=30), st.integers(0, 10_000))
def test_never_beyond_the_limit(learned: list[tuple[int, int]], limit: int) -> None:
    lengths = Lengths()
    for tokens, limits in learned:
        lengths.learn(0, tokens, limits)
    assert 0 <= lengths.expected(0, limit) <= limit


@given(st.floats(0.01, 1.0), st.integers(1, 500), st.integers(1, 500))
def test_longer_limits_stay_longer(share: float, first: int, second: int) -> None:
    lengths = Lengths()
    lengths.learn(0, int(share * 1000), 1000)
    if first <= second:
        assert lengths.expected(0, first) <= lengths.expected(0, second)
