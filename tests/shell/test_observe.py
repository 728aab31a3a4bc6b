"""What is told of a run while it works."""

from __future__ import annotations

from penstock.core.dispatch.replica import TRANSITIONS
from penstock.runtime.observe import STATES


def test_every_state_of_a_replica_has_a_name() -> None:
    states = {*TRANSITIONS, *(after for events in TRANSITIONS.values() for after in events.values())}
    assert set(STATES) == states
