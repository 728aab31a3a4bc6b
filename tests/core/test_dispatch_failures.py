"""Dispatch when replicas fail: requeue, restart, circuit, hang, suspects."""

from __future__ import annotations

import pytest
from core_kit import DrivenDispatch

from penstock.core import events as ev


def kinds(dispatch: DrivenDispatch) -> list[str]:
    return [recovered.kind for recovered in dispatch.all(ev.Recovered)]


def test_what_a_dead_replica_had_goes_to_the_others_at_once() -> None:
    dispatch = DrivenDispatch(2)
    dispatch.ready(0, 1, slots=4)
    dispatch.submit(0, 1)
    dispatch.lose(0)
    assert dispatch.sent() == {1: [0]}
    assert kinds(dispatch) == ["requeued"]
    assert dispatch.only(ev.Send).attempts == [2]


def test_a_dead_replica_is_started_again_after_its_backoff() -> None:
    dispatch = DrivenDispatch(1, restart_backoff_s=1.0)
    dispatch.ready(0)
    dispatch.lose(0)
    dispatch.tell(ev.Tick(), after_s=0.9)
    assert not dispatch.all(ev.StartReplica)
    dispatch.tell(ev.Tick(), after_s=0.2)
    assert dispatch.only(ev.StartReplica).incarnation == 2


def test_the_end_of_an_earlier_incarnation_is_not_its_own() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0)
    lost = ev.ReplicaLost(replica=0, incarnation=1, reason="died", jitter=0.0)
    dispatch.tell(lost)
    dispatch.bring_back(0)
    dispatch.submit(7)
    dispatch.tell(lost)
    assert dispatch.out(0) == [7]


def test_the_circuit_opens_after_several_deaths_and_the_pool_is_down() -> None:
    dispatch = DrivenDispatch(1, circuit_deaths=2, circuit_window_s=1000.0)
    dispatch.ready(0)
    dispatch.lose(0)
    dispatch.bring_back(0)
    dispatch.lose(0)
    assert "circuit" in kinds(dispatch)
    assert dispatch.only(ev.PoolDown).reason == "died"
    assert dispatch.tell(ev.Tick(), after_s=1e6) == []


def test_a_pool_is_down_only_when_all_of_its_replicas_are() -> None:
    dispatch = DrivenDispatch(2)
    dispatch.tell(ev.OpenPools(pools=[0]))
    dispatch.tell(ev.ReplicaLoadFailed(replica=0, incarnation=1, reason="no such model"))
    assert dispatch.said == []
    dispatch.tell(ev.ReplicaLoadFailed(replica=1, incarnation=1, reason="no such model"))
    assert dispatch.only(ev.PoolDown).reason == "no such model", "one cause is told once"


def test_a_load_that_ends_twice_without_being_ready_is_given_up() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.tell(ev.OpenPools(pools=[0]))
    dispatch.lose(0)
    dispatch.tell(ev.Tick(), after_s=100.0)
    dispatch.lose(0)
    assert dispatch.only(ev.PoolDown)


def test_a_load_that_hangs_is_killed_though_it_sends_heartbeats_and_given_up_the_second_time() -> None:
    dispatch = DrivenDispatch(1, load_timeout_s=50.0)
    dispatch.tell(ev.OpenPools(pools=[0]))
    for incarnation in (1, 2):
        beat = ev.HeartbeatArrived(replica=0, incarnation=incarnation, executing=0, waiting=0, progress=0)
        dispatch.tell(beat, after_s=40.0)
        dispatch.tell(ev.Tick(), after_s=10.0)
        assert dispatch.only(ev.KillReplica).incarnation == incarnation
        dispatch.lose(0)
        dispatch.tell(ev.Tick(), after_s=30.0)
    assert dispatch.machine.pools[0].down


def test_ready_after_the_order_to_kill_is_too_late() -> None:
    dispatch = DrivenDispatch(1, load_timeout_s=50.0)
    dispatch.tell(ev.OpenPools(pools=[0]))
    dispatch.tell(ev.Tick(), after_s=50.0)
    dispatch.tell(ev.ReplicaReady(replica=0, incarnation=1, slots=4, kv_tokens=0))
    dispatch.submit(0)
    assert dispatch.sent() == {}


# ---------------------------------------------------------------- hangs


def test_no_progress_is_a_hang_whatever_the_heartbeats_say() -> None:
    dispatch = DrivenDispatch(1, progress_timeout_s=10.0)
    dispatch.ready(0)
    dispatch.submit(0)
    for _ in range(9):
        dispatch.tell(ev.HeartbeatArrived(replica=0, incarnation=1, executing=1, waiting=0, progress=5), after_s=1.0)
    dispatch.tell(ev.Tick(), after_s=1.0)
    assert not dispatch.all(ev.KillReplica), "the first heartbeat told of progress"
    dispatch.tell(ev.Tick(), after_s=1.0)
    assert dispatch.only(ev.KillReplica).reason == "no progress for 10 s (1 requests in flight)"
    assert "hang" in kinds(dispatch)


def test_a_host_that_has_lost_its_requests_counts_as_hung() -> None:
    dispatch = DrivenDispatch(1, progress_timeout_s=10.0)
    dispatch.ready(0)
    dispatch.submit(0)
    for _ in range(11):
        dispatch.tell(ev.HeartbeatArrived(replica=0, incarnation=1, executing=0, waiting=0, progress=5), after_s=1.0)
    dispatch.tell(ev.Tick())
    assert dispatch.only(ev.KillReplica)


def test_who_has_nothing_to_do_owes_no_progress() -> None:
    dispatch = DrivenDispatch(1, progress_timeout_s=10.0)
    dispatch.ready(0)
    assert dispatch.tell(ev.Tick(), after_s=1000.0) == []
    dispatch.submit(0)
    dispatch.tell(ev.Tick(), after_s=9.0)
    assert not dispatch.all(ev.KillReplica)


# ---------------------------------------------------------------- suspects


def suspected(replicas: int = 2, tasks: int = 2, **limits: int | float) -> DrivenDispatch:
    """Requests 0, 1, ... were in flight at two deaths."""
    dispatch = DrivenDispatch(replicas, circuit_deaths=100, **limits)
    dispatch.ready(0, slots=4)
    dispatch.submit(*range(tasks))
    dispatch.lose(0)
    dispatch.bring_back(0, slots=4)
    dispatch.lose(0)
    assert [suspect.task for suspect in dispatch.machine.pools[0].suspects] == list(range(tasks))
    return dispatch


def test_suspects_are_tried_alone_one_after_the_other() -> None:
    dispatch = suspected()
    dispatch.bring_back(0)
    assert dispatch.sent() == {0: [0]}
    assert kinds(dispatch) == ["suspect"]
    dispatch.submit(50)
    assert dispatch.sent() == {}, "nobody else is ready"
    dispatch.tell(dispatch.answers(0, 0))
    assert dispatch.sent() == {0: [1]}
    dispatch.tell(dispatch.answers(0, 1))
    assert dispatch.sent() == {0: [50]}, "back to all"


def test_the_others_go_on_meanwhile() -> None:
    dispatch = suspected()
    dispatch.bring_back(0)
    dispatch.tell(ev.ReplicaReady(replica=1, incarnation=1, slots=4, kv_tokens=0))
    dispatch.submit(50, 51)
    assert dispatch.sent() == {1: [50, 51]}


def test_only_who_kills_alone_twice_is_given_up() -> None:
    dispatch = suspected(1, tasks=2)
    dispatch.bring_back(0)
    dispatch.lose(0)
    assert not dispatch.all(ev.FailRequests)
    dispatch.tell(ev.Tick())
    assert dispatch.only(ev.StartReplica), "at once: a death in the suspects' lane does not back off"
    dispatch.tell(ev.ReplicaReady(replica=0, incarnation=4, slots=4, kv_tokens=0))
    assert dispatch.sent() == {0: [1]}
    dispatch.tell(dispatch.answers(0, 1))
    assert dispatch.sent() == {0: [0]}
    dispatch.lose(0)
    failure = dispatch.only(ev.FailRequests)
    assert (failure.tasks, failure.codes, failure.indexes) == ([0], ["engine_crash"], [-1])
    assert "died 2 times while it ran this request alone: died" in failure.messages[0]


def test_deaths_of_suspects_do_not_open_the_circuit() -> None:
    dispatch = suspected(1, tasks=3, solo_crashes=4)
    dispatch.machine.replicas[0].deaths.clear()
    for _ in range(12):
        dispatch.bring_back(0)
        dispatch.lose(0)
    assert not dispatch.machine.replicas[0].deaths
    assert dispatch.machine.pools[0].waiting() == 0


def test_who_sat_beside_on_the_suspects_replica_is_not_blamed() -> None:
    dispatch = suspected(2, tasks=1)
    dispatch.tell(ev.ReplicaReady(replica=1, incarnation=1, slots=4, kv_tokens=0))
    chosen = 1
    assert dispatch.sent() == {chosen: [0]}
    dispatch.tell(dispatch.answers(chosen, 0))
    dispatch.submit(60, 61)
    assert dispatch.out(chosen) == [60, 61]
    dispatch.lose(chosen)
    waiting = dispatch.machine.pools[0].lanes.requests()
    assert [(request.task, request.solo_crashes) for request in waiting] == [(60, 0), (61, 0)]


@pytest.mark.parametrize("where", ["waiting", "in flight"])
def test_a_suspect_can_be_cancelled(where: str) -> None:
    dispatch = suspected(1, tasks=2)
    if where == "in flight":
        dispatch.bring_back(0)
    dispatch.tell(ev.CancelRequests(tasks=[0]))
    if where == "waiting":
        dispatch.bring_back(0)
    assert dispatch.sent() == {0: [1]}


def test_a_replica_that_can_not_load_again_passes_the_suspects_on() -> None:
    dispatch = suspected(2, tasks=1)
    dispatch.bring_back(0)
    dispatch.lose(0)
    dispatch.tell(ev.Tick(), after_s=1.0)
    dispatch.tell(ev.ReplicaReady(replica=1, incarnation=1, slots=4, kv_tokens=0))
    assert dispatch.sent() == {}, "the replica that tried it is on its way back"
    dispatch.tell(ev.ReplicaLoadFailed(replica=0, incarnation=4, reason="no such model"))
    assert dispatch.sent() == {1: [0]}


def test_a_replica_that_is_given_up_passes_the_suspects_on() -> None:
    dispatch = suspected(2, tasks=1)
    dispatch.bring_back(0)
    assert dispatch.out(0) == [0]
    dispatch.machine.replicas[0].move("lost")
    dispatch.machine.replicas[0].move("give_up")
    dispatch.machine._requeue(dispatch.machine.pools[0], dispatch.machine.replicas[0], "gone")
    dispatch.tell(ev.ReplicaReady(replica=1, incarnation=1, slots=4, kv_tokens=0))
    assert dispatch.sent() == {1: [0]}
