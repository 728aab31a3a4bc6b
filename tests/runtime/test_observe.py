"""What is told of a run while it works."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstock.core.dispatch.replica import TRANSITIONS
from penstock.runtime.run.observe import STATES, Observer


def test_every_state_of_a_replica_has_a_name() -> None:
    states = {*TRANSITIONS, *(after for events in TRANSITIONS.values() for after in events.values())}
    assert set(STATES) == states


@pytest.mark.parametrize(("known", "estimated", "rows_in", "total"), [
    (300, None, 102, 300),
    (None, 300, 102, 300),
    (None, 20, 102, 102),  # a --limit below what an earlier invocation has finished
    (None, None, 102, None),
])  # fmt: skip
def test_the_total_is_no_less_than_what_was_finished(
    known: int | None, estimated: int | None, rows_in: int, total: int | None
) -> None:
    observer: Any = SimpleNamespace(phase=0, _estimate=lambda: estimated)
    flow: Any = SimpleNamespace(total_rows=known)
    assert Observer._total(observer, flow, rows_in) == total
