"""Dispatch: what waits in a host while a slot elsewhere is idle is called back."""

from __future__ import annotations

from core_kit import DrivenDispatch

from penstock.core import events as ev


def tail() -> DrivenDispatch:
    """Replica 0 has four requests for one slot, replica 1 has run dry; nothing waits."""
    dispatch = DrivenDispatch(2)
    dispatch.ready(0, 1, slots=1)
    for replica in dispatch.machine.replicas:
        replica.lookahead = 3
        dispatch.machine.pools[0].offer(replica)
    dispatch.submit(*range(8))
    assert dispatch.sent() == {0: [0, 2, 4, 6], 1: [1, 3, 5, 7]}
    dispatch.tell(dispatch.answers(1, 1, 3, 5, 7))
    return dispatch


def test_look_ahead_is_called_back_for_an_idle_replica() -> None:
    dispatch = tail()
    assert dispatch.only(ev.TakeBackFrom).tasks == [6]
    dispatch.tell(dispatch.answers(0, executing=1, waiting=2, returned=[6]))
    assert dispatch.only(ev.Send).replica == 1
    assert dispatch.only(ev.Send).attempts == [2]


def test_what_had_begun_is_not_waited_for_and_others_are_called_back() -> None:
    dispatch = tail()
    dispatch.tell(dispatch.answers(0, returned=[]))
    assert dispatch.only(ev.TakeBackFrom).tasks == [4]
    for _ in range(3):
        dispatch.tell(dispatch.answers(0, returned=[]))
    assert dispatch.all(ev.TakeBackFrom) == [], "each is asked for once"


def test_one_recall_for_one_idle_slot() -> None:
    dispatch = tail()
    dispatch.tell(dispatch.answers(0, 0))
    assert not dispatch.all(ev.TakeBackFrom)


def test_each_of_two_take_backs_that_are_out_brings_back_what_it_names() -> None:
    dispatch = tail()
    assert dispatch.only(ev.TakeBackFrom).tasks == [6]
    dispatch.tell(ev.SlotsChanged(replica=1, incarnation=1, slots=2))
    assert dispatch.only(ev.TakeBackFrom).tasks == [4]
    dispatch.tell(dispatch.answers(0, returned=[6]))
    assert dispatch.sent() == {1: [6]}
    dispatch.tell(dispatch.answers(0, returned=[4]))
    assert dispatch.sent() == {1: [4]}
    assert dispatch.out(0) == [0, 2]


def test_a_returned_request_that_is_not_there_changes_nothing() -> None:
    dispatch = tail()
    dispatch.tell(dispatch.answers(0, 6, returned=[6, 999]))
    assert dispatch.only(ev.Deliver).accepted == [0]
    assert 6 not in dispatch.out(0) + dispatch.out(1)


def test_recalls_that_were_out_on_a_killed_replica_are_made_elsewhere() -> None:
    dispatch = DrivenDispatch(3, progress_timeout_s=5.0)
    dispatch.ready(0, 1, 2, slots=1)
    for replica in dispatch.machine.replicas:
        replica.lookahead = 3
        dispatch.machine.pools[0].offer(replica)
    dispatch.submit(*range(12))
    dispatch.tell(dispatch.answers(2, *dispatch.out(2)))
    first = dispatch.only(ev.TakeBackFrom)
    other = 1 - first.replica
    dispatch.tell(dispatch.answers(other, progress=9), after_s=4.0)
    dispatch.tell(ev.Tick(), after_s=2.0)
    assert dispatch.only(ev.KillReplica).replica == first.replica
    assert dispatch.only(ev.TakeBackFrom).replica == other
