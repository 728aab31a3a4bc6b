"""Bugs planted in how replicas are kept, and in how suspects are tried, one at a time (see planting.py)."""

from __future__ import annotations

from typing import Any

import pytest
from planting import caught, planted

from penstock.core import events as ev
from penstock.core.dispatch.failover import Failover
from penstock.core.dispatch.peers import PeerGroup
from penstock.core.dispatch.pool import Pool
from penstock.core.dispatch.quarantine import Quarantine
from penstock.core.dispatch.replica import Replica
from penstock.core.dispatch.residency import Residency
from penstock.core.dispatch.restarts import MemoryShare, Restarts
from penstock.core.dispatch.state import DispatchState
from penstock.core.dispatch.supervisor import Supervisor

PLANTED, plant = planted()


@plant
def suspect_killed_after_one_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is given up at its first death in the suspects' lane."""
    requeue = Failover.requeue

    def hasty(self: Failover, pool: Pool, replica: Replica, reason: str) -> None:
        tried = replica.in_flight.get(replica.alone)
        if tried is not None:
            tried.solo_crashes += 1
        requeue(self, pool, replica, reason)

    monkeypatch.setattr(Failover, "requeue", hasty)


@plant
def neighbours_of_a_suspect_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was in flight on the lane when it died counts as tried alone."""
    requeue = Failover.requeue

    def blame(self: Failover, pool: Pool, replica: Replica, reason: str) -> None:
        if replica.trying and replica.alone not in replica.in_flight:
            for request in replica.in_flight.values():
                request.solo_crashes += 1
        requeue(self, pool, replica, reason)

    monkeypatch.setattr(Failover, "requeue", blame)


@plant
def suspects_tried_in_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suspects go back to the others."""
    attempt = Failover.try_suspects

    def crowd(self: Failover, pool: Pool, sends: Any) -> None:
        for request in pool.quarantine.requests():
            pool.lanes.push(request)
        pool.quarantine.groups.clear()
        pool.quarantine.count = 0
        attempt(self, pool, sends)

    monkeypatch.setattr(Failover, "try_suspects", crowd)


@plant
def half_of_the_suspects_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was in flight at a death in the lane one half is lost."""
    halve = Quarantine.halve
    monkeypatch.setattr(Quarantine, "halve", lambda self, suspects: halve(self, suspects[: (len(suspects) + 1) // 2]))


@plant
def survivor_starved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ready replica tries one group of suspects after another while other requests wait."""
    monkeypatch.setattr(Quarantine, "must_serve", lambda self, replica, now, *, others_wait: False)


@plant
def load_after_a_suspects_death_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn of the suspects ends with the death of their replica: the load is not made up for."""

    def at_once(self: Quarantine, now: float) -> None:
        if self.turn_began is not None:
            self.next_turn = now + (now - self.turn_began)
            self.turn_began = None

    monkeypatch.setattr(Quarantine, "close_turn", at_once)


@plant
def suspects_never_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ready replica serves for ever, whoever waits."""

    def for_ever(self: Quarantine, replica: Replica, now: float, *, others_wait: bool) -> bool:
        return not any(each.state == "ready" for each in self._replicas if each is not replica)

    monkeypatch.setattr(Quarantine, "must_serve", for_ever)


@plant
def restarted_without_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The circuit never opens."""
    monkeypatch.setattr(Restarts, "circuit_open", lambda self: False)


@plant
def open_circuit_tried_too_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that was given up is tried again at once."""

    def at_once(self: Restarts, now: float) -> None:
        self.retry_at = now

    monkeypatch.setattr(Restarts, "gave_up", at_once)


@plant
def half_open_circuit_counts_as_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that is tried again may die as often as any other."""

    def closed(self: Restarts) -> None:
        self.retry_at, self.never_ready = None, 0
        self.deaths.clear()

    monkeypatch.setattr(Restarts, "tries_again", closed)


@plant
def pool_down_though_a_circuit_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool is given up for good while one of its replicas could come back."""
    check_pool = DispatchState.check_pool

    def hasty(self: DispatchState, pool: Pool) -> None:
        kept = [(replica.restarts, replica.restarts.retry_at) for replica in pool.replicas]
        for restarts, _ in kept:
            restarts.retry_at = None
        check_pool(self, pool)
        for restarts, retry_at in kept:
            restarts.retry_at = retry_at

    monkeypatch.setattr(DispatchState, "check_pool", hasty)


@plant
def hang_never_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat is taken for progress."""
    monkeypatch.setattr(Replica, "progress_deadline", lambda self: None)


@plant
def next_phase_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next phase loads while replicas of the one before are still there."""

    def at_once(self: Residency) -> None:
        if self.closing:
            self.closing = False
            self._state.emit(ev.PoolsClosed())

    monkeypatch.setattr(Residency, "check", at_once)


@plant
def restarts_between_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica whose restart is due takes memory while others still leave."""
    monkeypatch.setattr(Residency, "closing", property(lambda self: False, lambda self, value: None), raising=False)


@plant
def all_replicas_in_every_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas are loaded in phases that the plan does not load them in."""
    monkeypatch.setattr(DispatchState, "belongs", lambda self, replica: True)


@plant
def nothing_held_back_is_offered_after_a_rung(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was held back for a replica that was loading stays so when it runs out of memory."""

    def touch(self: DispatchState, replica: Replica) -> None:
        self.pool_of(replica).recount(replica)

    monkeypatch.setattr(DispatchState, "touch", touch)


@plant
def phases_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that has left is still waited for."""
    monkeypatch.setattr(Residency, "left", lambda self, replica: self.leaving.pop(replica.index, None))


@plant
def what_sleeps_is_never_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool opens without those of its replicas that sleep."""
    can = Replica.can
    monkeypatch.setattr(Replica, "can", lambda self, event: event != "wake" and can(self, event))


@plant
def what_was_too_much_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that ran out of memory starts again with as much room."""

    def uncut(self: MemoryShare, slots: int, kv_tokens: int) -> bool:
        cut(self, slots, kv_tokens)
        self.share = 1.0
        return True

    cut = MemoryShare.cut
    monkeypatch.setattr(MemoryShare, "cut", uncut)


@plant
def memory_is_a_suspects_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was in flight when memory ran out is charged with a death alone."""
    starved = Failover._starved

    def blame(self: Failover, pool: Pool, replica: Replica, reason: str) -> bool:
        for request in replica.in_flight.values():
            request.solo_crashes += 1
        return starved(self, pool, replica, reason)

    monkeypatch.setattr(Failover, "_starved", blame)


@plant
def what_a_slow_replica_had_is_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that is replaced because it is slow is taken for one that died of what it had."""
    eject = Supervisor._eject

    def blame(self: Supervisor, replica: Replica, share: float) -> None:
        eject(self, replica, share)
        replica.ending_because = "hung"

    monkeypatch.setattr(Supervisor, "_eject", blame)


@plant
def the_last_that_serves_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica is replaced because it is slower than those that are gone."""

    def alone(self: PeerGroup, now: float) -> list[tuple[Replica, float]]:
        serving = [replica for replica in self._replicas if replica.state == "ready" and replica.in_flight]
        return [(replica, 0.1) for replica in serving if len(serving) == 1 and replica.pace.answers > 3]

    monkeypatch.setattr(PeerGroup, "slow_ones", alone)


@plant
def who_tries_suspects_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quarantine lane, where few run at a time, is compared with the others."""

    def lane(self: PeerGroup, now: float) -> list[tuple[Replica, float]]:
        return [(replica, 0.1) for replica in self._replicas if replica.state == "quarantined"]

    monkeypatch.setattr(PeerGroup, "slow_ones", lane)


@plant
def device_that_failed_counts_as_any_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica whose device has failed twice is started again."""
    died = Restarts.died

    def forgetful(self: Restarts, now: float, jitter: float, *, counts: bool, device_failed: bool = False) -> None:
        died(self, now, jitter, counts=counts)

    monkeypatch.setattr(Restarts, "died", forgetful)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    caught(name)
