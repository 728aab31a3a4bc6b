from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import replica, running

from penstock.report import figures
from penstock.report.facts import PoolFacts


def pool(first_s: float | None, last_s: float | None) -> PoolFacts:
    return PoolFacts("writer", ["writer"], first_request_s=first_s, last_response_s=last_s)


def test_time_counts_from_the_later_of_first_request_and_readiness() -> None:
    assert figures.busy_fraction(replica(ready_s=1.0, busy_s=4.0), pool(2.0, 10.0)) == 0.5
    assert figures.busy_fraction(replica(ready_s=6.0, busy_s=4.0), pool(2.0, 10.0)) == 1.0
    assert figures.fill_fraction(replica(ready_s=6.0, fill_s=1.0), pool(2.0, 10.0)) == 0.25


@pytest.mark.parametrize(
    ("ready_s", "first_s", "last_s"), [(None, 1.0, 2.0), (1.0, None, None), (1.0, 1.0, None), (9.0, 1.0, 2.0)]
)
def test_a_replica_without_active_time_has_no_share(
    ready_s: float | None, first_s: float | None, last_s: float | None
) -> None:
    assert figures.busy_fraction(replica(ready_s=ready_s), pool(first_s, last_s)) is None


times = st.floats(0, 1e6)


@given(busy=times, ready=times, first=times, last=times)
def test_a_share_lies_between_0_and_1(busy: float, ready: float, first: float, last: float) -> None:
    share = figures.busy_fraction(replica(ready_s=ready, busy_s=busy), pool(first, last))
    assert share is None or 0.0 <= share <= 1.0


def test_reasons_are_grouped_by_what_they_say() -> None:
    waiting = [
        replica(0, state="starting", reason="loading"),
        replica(1),
        replica(2, reason="no rows are ready"),
        replica(3, state="starting", reason="loading"),
        replica(4, state="failed"),
        replica(5, state="starting", reason="starting"),
    ]
    assert figures.waiting_reasons(waiting) == [
        ("starting (loading)", ["writer-0", "writer-3"]),
        ("no rows are ready", ["writer-2"]),
        ("failed", ["writer-4"]),
        ("starting", ["writer-5"]),
    ]


@pytest.mark.parametrize(("eta_s", "text"), [(None, ""), (0.0, ""), (0.9, ""), (1.0, "about 1.0s left")])
def test_time_left_is_shown_from_a_second_on(eta_s: float | None, text: str) -> None:
    assert figures.remaining(running(eta_s=eta_s)) == text


def test_the_mean_is_over_ready_replicas_only() -> None:
    replicas = [replica(0, busy_recent=1.0), replica(1, busy_recent=0.5), replica(2, state="starting", busy_recent=0.0)]
    both = PoolFacts("writer", ["writer"], replicas=replicas)
    assert figures.mean_busy_recent(both) == 0.75
    assert figures.idlest(both) is replicas[1]
    assert figures.mean_busy_recent(PoolFacts("writer", ["writer"])) is None


def test_reused_rows_are_told_with_what_remains() -> None:
    assert figures.reused(running(reused=0)) == ""
    assert figures.reused(running(reused=1_000, total_rows=None)) == "1,000 reused"
    assert figures.reused(running(reused=1_000, total_rows=4_000, committed=1_500)) == "1,000 reused, 2,500 remaining"
