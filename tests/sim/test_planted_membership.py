"""Bugs planted in how the replica set changes, one at a time (see planting.py)."""

from __future__ import annotations

from typing import Any

import pytest
from planting import caught, planted

from penstock.core import events as ev
from penstock.core.dispatch import failover
from penstock.core.dispatch.failover import Failover
from penstock.core.dispatch.membership import Membership
from penstock.core.dispatch.pool import Pool
from penstock.core.dispatch.quarantine import Quarantine
from penstock.core.dispatch.replica import Replica
from penstock.core.dispatch.residency import Residency

PLANTED, plant = planted()


@plant
def draining_replica_given_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that drains takes what comes."""

    def move(self: Replica, event: str) -> None:
        if event != "drain":
            _move(self, event)

    _move = Replica.move
    monkeypatch.setattr(Replica, "move", move)


@plant
def drained_replica_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that has finished what it had is not ended."""
    monkeypatch.setattr(Membership, "check_drained", lambda self, pool: None)


@plant
def drain_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that is to finish what it has is ended at once."""
    remove = Membership.remove

    def at_once(self: Membership, event: ev.RemoveReplica) -> None:
        remove(self, ev.RemoveReplica(replica=event.replica, drain=False))

    monkeypatch.setattr(Membership, "remove", at_once)


@plant
def removed_replica_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that was removed is started again with the next phase, or after its death."""
    monkeypatch.setattr(Replica, "wanted", property(lambda self: True, lambda self, value: None), raising=False)


@plant
def what_a_removed_replica_had_is_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a replica that is removed is taken for a death."""
    monkeypatch.setattr(failover, "NO_DEATH", frozenset({"slow"}))


@plant
def suspects_of_a_removed_replica_go_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suspects whose replica is removed while it tries them go back to the others."""
    hand_over = Failover._hand_over

    def free(self: Failover, pool: Pool, requests: Any, *, suspect: bool) -> None:
        hand_over(self, pool, requests, suspect=False)

    monkeypatch.setattr(Failover, "_hand_over", free)


@plant
def what_a_removed_replica_had_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in flight on a replica that is removed is forgotten."""
    monkeypatch.setattr(Failover, "_hand_over", lambda self, pool, requests, *, suspect: None)


@plant
def removal_is_said_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """ReplicaRemoved while the processes are still there."""
    end = Residency.end

    def hasty(self: Residency, replica: Replica, reason: str) -> None:
        end(self, replica, reason)
        if not replica.wanted and replica.state == "leaving":
            self._state.emit(ev.ReplicaRemoved(replica=replica.index))

    monkeypatch.setattr(Residency, "end", hasty)


@plant
def removal_is_never_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that was removed is not said to have gone."""
    left = Residency.left

    def silent(self: Residency, replica: Replica) -> None:
        wanted, replica.wanted = replica.wanted, True
        left(self, replica)
        replica.wanted = wanted

    monkeypatch.setattr(Residency, "left", silent)


@plant
def paused_pool_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that is paused gets requests."""
    monkeypatch.setattr(Pool, "paused", property(lambda self: False, lambda self, value: None), raising=False)


@plant
def resumed_pool_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits in a pool is not looked at when the pause is over."""

    def resume(self: Membership, event: ev.ResumePool) -> None:
        self._state.pools[event.pool].paused_at = None

    monkeypatch.setattr(Membership, "resume", resume)


@plant
def a_pause_is_taken_off_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What suspects had of the last ready replica counts as less than it was, for a pause."""
    take_off = Quarantine.take_off

    def twice(self: Quarantine, pause_s: float) -> None:
        take_off(self, pause_s)
        if self.turn_began is not None:
            self.turn_began += pause_s

    monkeypatch.setattr(Quarantine, "take_off", twice)


@plant
def new_slots_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica with more slots than before gets no more for it."""
    slots_changed = Membership.slots_changed

    def silent(self: Membership, replica: Replica, event: ev.SlotsChanged) -> None:
        pool = self._state.pool_of(replica)
        offer, pool.offer = pool.offer, lambda replica: None  # type: ignore[method-assign]
        slots_changed(self, replica, event)
        pool.offer = offer  # type: ignore[method-assign]

    monkeypatch.setattr(Membership, "slots_changed", silent)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    caught(name)
