from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (-1, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.4, "59s"), (59.6, "1m 00s"), (185, "3m 05s"),
     (3599.6, "1h 00m"), (7620, "2h 07m"), (86400 * 3 + 4 * 3600, "3d 04h"), (math.inf, "unknown")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (-5, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_499, "999 kB"), (999_999, "1.0 MB"),
     (1_234_000_000, "1.2 GB"), (80_000_000_000, "80.0 GB"), (141_100_000_000, "141 GB"), (5 * 10**18, "5000 PB")],
)  # fmt: skip
def test_byte_size(size: int, text: str) -> None:
    assert units.byte_size(size) == text


@pytest.mark.parametrize(
    ("per_s", "text"),
    [(0, "0"), (-1, "0"), (math.nan, "0"), (math.inf, "0"), (0.421, "0.42"), (8.14, "8.1"), (12345.6, "12,346")],
)
def test_rate(per_s: float, text: str) -> None:
    assert units.rate(per_s) == text


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_only_a_finished_run_is_at_100_percent(done: int, total: int) -> None:
    text = units.percent_done(done, total)
    assert (text == "100.0%") == (done >= total)


def test_percent_of_an_unknown_total() -> None:
    assert units.percent_done(5, None) is None
    assert units.percent_done(0, 0) is None


@given(st.text(), st.integers(1, 200))
def test_one_line_is_one_printable_line_within_its_limit(text: str, limit: int) -> None:
    line = units.one_line(text, limit)
    assert len(line) <= limit
    assert line.isprintable()


def test_nouns() -> None:
    assert [units.noun(1, "row"), units.noun(2000, "row"), units.noun(2, "entry", "entries")] == [
        "1 row",
        "2,000 rows",
        "2 entries",
    ]
