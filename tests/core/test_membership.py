"""The replica set while it runs: replicas added and removed, pools paused, slots that change."""

from __future__ import annotations

import pytest
from core_kit import DrivenDispatch

from penstock.core import events as ev
from penstock.core.shape import ReplicaShape
from penstock.errors import InvariantError


def state(dispatch: DrivenDispatch, replica: int) -> str:
    return dispatch.machine.replicas[replica].state


def ready(dispatch: DrivenDispatch, replica: int, slots: int = 2) -> None:
    incarnation = dispatch.incarnation(replica)
    dispatch.tell(ev.ReplicaReady(replica=replica, incarnation=incarnation, slots=slots, kv_tokens=0))


def test_a_draining_replica_finishes_what_it_has_gets_nothing_new_and_leaves() -> None:
    dispatch = DrivenDispatch(2)
    dispatch.ready(0, 1)
    dispatch.submit(0, 1, 2)
    mine = dispatch.out(0)
    dispatch.tell(ev.RemoveReplica(replica=0))
    assert state(dispatch, 0) == "draining" and not dispatch.all(ev.KillReplica)
    dispatch.submit(10, 11)
    assert dispatch.sent() == {1: [10, 11]}
    dispatch.tell(dispatch.answers(0, *mine))
    assert dispatch.all(ev.Deliver)
    assert dispatch.only(ev.KillReplica).reason == "it was removed from its pool"
    assert not dispatch.lose(0) or dispatch.only(ev.ReplicaRemoved).replica == 0
    assert state(dispatch, 0) == "off"
    dispatch.tell(ev.Tick(), after_s=1000.0)
    assert state(dispatch, 0) == "off" and not dispatch.all(ev.StartReplica)


def test_what_was_in_flight_on_a_replica_that_is_removed_at_once_is_no_suspect() -> None:
    dispatch = DrivenDispatch(2)
    dispatch.ready(0, 1, slots=4)
    dispatch.submit(0, 1)
    mine = dispatch.out(0)
    dispatch.tell(ev.RemoveReplica(replica=0, drain=False))
    assert dispatch.all(ev.KillReplica) and dispatch.out(0) == mine
    dispatch.lose(0)
    assert dispatch.sent() == {1: mine}
    assert not dispatch.machine.pools[0].quarantine.count


def test_a_drain_can_be_cut_short_and_is_asked_for_twice_in_vain() -> None:
    dispatch = DrivenDispatch(2)
    dispatch.ready(0, 1)
    dispatch.submit(0, 1)
    dispatch.tell(ev.RemoveReplica(replica=0))
    assert dispatch.tell(ev.RemoveReplica(replica=0)) == []
    dispatch.tell(ev.RemoveReplica(replica=0, drain=False))
    assert dispatch.all(ev.KillReplica)
    assert dispatch.tell(ev.RemoveReplica(replica=0, drain=False)) == []


def test_the_requests_of_a_replica_that_dies_while_it_drains_are_suspects() -> None:
    dispatch = DrivenDispatch(2)
    dispatch.ready(0, 1)
    dispatch.submit(0, 1, 2, 3)
    dispatch.tell(ev.RemoveReplica(replica=0))
    dispatch.lose(0)
    assert dispatch.only(ev.ReplicaRemoved)
    assert dispatch.machine.pools[0].quarantine.count == 2


def test_a_replica_that_hangs_while_it_drains_does_not_come_back() -> None:
    dispatch = DrivenDispatch(2, progress_timeout_s=10.0)
    dispatch.ready(0, 1)
    dispatch.submit(0)
    dispatch.tell(ev.RemoveReplica(replica=0))
    dispatch.tell(ev.Tick(), after_s=11.0)
    assert dispatch.only(ev.KillReplica).dump_stacks
    dispatch.lose(0)
    assert dispatch.only(ev.ReplicaRemoved)
    dispatch.tell(ev.Tick(), after_s=1000.0)
    assert state(dispatch, 0) == "off" and not dispatch.all(ev.StartReplica)


@pytest.mark.parametrize("before", ["off", "starting", "waiting", "failed"])
def test_a_replica_that_does_not_serve_leaves_at_once(before: str) -> None:
    dispatch = DrivenDispatch(2)
    if before != "off":
        dispatch.ready(1)
    if before == "waiting":
        ready(dispatch, 0)
        dispatch.lose(0)
    if before == "failed":
        dispatch.tell(ev.ReplicaLoadFailed(replica=0, incarnation=1, reason="no such model"))
    assert state(dispatch, 0) == before
    dispatch.tell(ev.RemoveReplica(replica=0))
    if before == "starting":
        dispatch.lose(0)
    assert dispatch.only(ev.ReplicaRemoved).replica == 0
    assert not dispatch.all(ev.PoolDown)


def test_a_new_replica_is_started_and_takes_its_share() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=1)
    dispatch.submit(*range(6))
    dispatch.tell(ev.AddReplica(replica=1, shape=ReplicaShape("late", 0)))
    assert dispatch.only(ev.StartReplica).replica == 1
    ready(dispatch, 1, slots=4)
    assert set(dispatch.sent()) == {1}


def test_a_replica_comes_back_as_the_one_that_was_removed() -> None:
    dispatch = DrivenDispatch(2)
    dispatch.ready(0, 1)
    dispatch.tell(ev.RemoveReplica(replica=0))
    with pytest.raises(InvariantError, match="replica 0 was added, and is there as leaving"):
        dispatch.tell(ev.AddReplica(replica=0, shape=ReplicaShape("again", 0)))
    dispatch.lose(0)
    dispatch.tell(ev.AddReplica(replica=0, shape=ReplicaShape("again", 0)))
    assert dispatch.only(ev.StartReplica).incarnation == 2


def test_a_replica_of_a_pool_that_is_not_open_starts_with_it() -> None:
    dispatch = DrivenDispatch(1)
    assert dispatch.tell(ev.AddReplica(replica=1, shape=ReplicaShape("late", 0))) == []
    dispatch.tell(ev.OpenPools(pools=[0]))
    assert [start.replica for start in dispatch.all(ev.StartReplica)] == [0, 1]


def test_nothing_is_sent_to_a_pool_that_is_paused() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0)
    dispatch.tell(ev.PausePool(pool=0))
    dispatch.submit(0, 1)
    assert dispatch.said == []
    dispatch.tell(ev.ResumePool(pool=0))
    assert dispatch.sent() == {0: [0, 1]}


def test_slots_change_while_it_works() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=1)
    dispatch.submit(*range(12))
    before = len(dispatch.out(0))
    dispatch.tell(ev.SlotsChanged(replica=0, incarnation=1, slots=5))
    assert len(dispatch.out(0)) == before + 4
    dispatch.tell(ev.SlotsChanged(replica=0, incarnation=1, slots=1))
    dispatch.tell(dispatch.answers(0, *dispatch.out(0)[:2]))
    assert not dispatch.sent(), "it still has more than its slots hold"
    assert dispatch.tell(ev.SlotsChanged(replica=0, incarnation=9, slots=50)) == []


@pytest.mark.parametrize("number", [-1, 3])
def test_an_added_replica_has_a_number_of_the_set_or_the_next(number: int) -> None:
    with pytest.raises(InvariantError, match=f"replica {number} was added, and there are 2"):
        DrivenDispatch(2).tell(ev.AddReplica(replica=number, shape=ReplicaShape("late", 0)))
