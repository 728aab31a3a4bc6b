"""Dispatch when replicas fail: requeue, restart, circuit, hang, suspects."""

from __future__ import annotations

import pytest
from core_kit import DrivenDispatch

from penstock.core import events as ev


def kinds(dispatch: DrivenDispatch) -> list[str]:
    return [recovered.kind for recovered in dispatch.all(ev.Recovered)]


def test_what_a_dead_replica_had_goes_to_one_that_has_nothing_to_do_at_once() -> None:
    dispatch = DrivenDispatch(2)
    dispatch.ready(0, 1, slots=4)
    dispatch.submit(0)
    dispatch.lose(0)
    assert dispatch.sent() == {1: [0]}
    assert kinds(dispatch) == ["requeued", "suspect"]
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


def given_up(**limits: int | float) -> DrivenDispatch:
    """One replica, whose circuit is open and tried again after 30 s."""
    dispatch = DrivenDispatch(1, circuit_deaths=2, circuit_window_s=1000.0, circuit_retry_s=30.0, **limits)
    dispatch.ready(0)
    dispatch.lose(0)
    dispatch.bring_back(0)
    dispatch.lose(0)
    assert "circuit" in kinds(dispatch)
    assert not dispatch.all(ev.PoolDown), "it will be tried again"
    return dispatch


def test_a_circuit_that_is_tried_again_closes_with_the_first_answer() -> None:
    dispatch = given_up()
    dispatch.submit(0)
    dispatch.tell(ev.Tick(), after_s=29.0)
    assert not dispatch.all(ev.StartReplica)
    dispatch.tell(ev.Tick(), after_s=1.0)
    incarnation = dispatch.only(ev.StartReplica).incarnation
    dispatch.tell(ev.ReplicaReady(replica=0, incarnation=incarnation, slots=2, kv_tokens=0))
    dispatch.tell(dispatch.answers(0, 0))
    dispatch.lose(0)
    assert "circuit" not in kinds(dispatch), "one death of two"


@pytest.mark.parametrize("loaded", [True, False])
def test_a_circuit_that_is_tried_again_opens_with_the_first_death(loaded: bool) -> None:
    dispatch = given_up()
    dispatch.tell(ev.Tick(), after_s=30.0)
    if loaded:
        dispatch.tell(ev.ReplicaReady(replica=0, incarnation=dispatch.incarnation(0), slots=2, kv_tokens=0))
    dispatch.lose(0)
    assert "circuit" in kinds(dispatch) and not dispatch.all(ev.PoolDown)
    dispatch.tell(ev.Tick(), after_s=30.0)
    assert dispatch.only(ev.StartReplica)


def test_a_pool_is_down_once_none_of_its_replicas_will_be_tried_again() -> None:
    dispatch = given_up()
    dispatch.tell(ev.Tick(), after_s=30.0)
    failed = ev.ReplicaLoadFailed(replica=0, incarnation=dispatch.incarnation(0), reason="no such model")
    dispatch.tell(failed)
    assert dispatch.only(ev.PoolDown)


def test_a_device_that_fails_twice_is_given_up() -> None:
    dispatch = DrivenDispatch(2, circuit_deaths=5)
    dispatch.ready(0, 1)
    for death in range(2):
        lost = ev.ReplicaLost(
            replica=0, incarnation=dispatch.incarnation(0), reason="CUDA error", jitter=0.0, device_failed=True
        )
        dispatch.tell(lost)
        assert ("circuit" in kinds(dispatch)) is (death == 1)
        if not death:
            dispatch.bring_back(0)
    assert not dispatch.all(ev.PoolDown), "the other one continues"


def test_a_pool_is_down_only_when_all_of_its_replicas_are() -> None:
    dispatch = DrivenDispatch(2)
    dispatch.tell(ev.OpenPools(pools=[0]))
    dispatch.tell(ev.ReplicaLoadFailed(replica=0, incarnation=1, reason="no such model"))
    assert dispatch.said == []
    dispatch.tell(ev.ReplicaLoadFailed(replica=1, incarnation=1, reason="no such model"))
    assert dispatch.only(ev.PoolDown).reason == "no such model", "one cause is reported once"


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


def test_a_load_that_falls_silent_is_killed_long_before_its_limit() -> None:
    """A stopped process, as opposed to one that loads for long."""
    dispatch = DrivenDispatch(1)
    dispatch.tell(ev.OpenPools(pools=[0]))
    for _ in range(10):
        dispatch.tell(ev.HeartbeatArrived(replica=0, incarnation=1, executing=0, waiting=0, progress=0), after_s=50.0)
        assert not dispatch.tell(ev.Tick(), after_s=1.0)
    assert not dispatch.tell(ev.Tick(), after_s=58.0)
    dispatch.tell(ev.Tick(), after_s=1.0)
    assert dispatch.only(ev.KillReplica).reason == "silent for 60 s while loading"


def test_a_load_that_has_not_said_anything_is_waited_for() -> None:
    """A placement on a cluster may take long."""
    dispatch = DrivenDispatch(1)
    dispatch.tell(ev.OpenPools(pools=[0]))
    assert not dispatch.tell(ev.Tick(), after_s=1799.0)


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
    assert not dispatch.all(ev.KillReplica), "the first heartbeat reported progress"
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


# ---------------------------------------------------------------- out of memory at work


def starve(dispatch: DrivenDispatch, replica: int) -> None:
    incarnation = dispatch.incarnation(replica)
    dispatch.tell(
        ev.ReplicaLost(replica=replica, incarnation=incarnation, reason="no memory", jitter=0.0, out_of_memory=True)
    )


def test_out_of_memory_blames_no_request_and_the_next_start_uses_less_room() -> None:
    dispatch = DrivenDispatch(2)
    dispatch.ready(0, 1, slots=8)
    dispatch.submit(*range(16))
    held = dispatch.out(0)
    starve(dispatch, 0)
    assert kinds(dispatch) == ["memory"] and dispatch.only(ev.Recovered).count == 75
    pool = dispatch.machine.pools[0]
    again = {request.task for request in pool.lanes.requests()} | set(dispatch.out(1))
    assert not pool.quarantine.groups and again >= set(held)
    dispatch.tell(ev.Tick())
    assert dispatch.only(ev.StartReplica).share == 0.75, "at once: it is no death of a broken replica"


def test_no_configuration_runs_out_of_memory_more_than_twice() -> None:
    dispatch = DrivenDispatch(1, circuit_deaths=2, circuit_window_s=1e6)
    dispatch.ready(0, slots=8)
    dispatch.submit(*range(8))
    shares = []
    for _ in range(30):
        starve(dispatch, 0)
        if dispatch.all(ev.PoolDown):
            break
        dispatch.tell(ev.Tick(), after_s=1000.0)
        shares.append(dispatch.only(ev.StartReplica).share)
        slots = max(1, int(8 * shares[-1]))
        dispatch.tell(ev.ReplicaReady(replica=0, incarnation=dispatch.incarnation(0), slots=slots, kv_tokens=0))
    assert dispatch.machine.pools[0].down
    assert shares == sorted(shares, reverse=True) and min(shares) >= 0.1
    tried = [max(1, int(8 * share)) for share in (1.0, *shares)]
    assert all(tried.count(slots) <= 2 for slots in tried if slots > 1), tried


def test_a_request_that_alone_takes_all_memory_twice_ends() -> None:
    dispatch = DrivenDispatch(1, circuit_deaths=100)
    dispatch.ready(0, slots=1)
    dispatch.submit(0, 1)
    starve(dispatch, 0)
    for _ in range(2):
        dispatch.bring_back(0, slots=1)
        assert dispatch.out(0) == [0], "apart: less than one slot there is not"
        starve(dispatch, 0)
    failure = dispatch.only(ev.FailRequests)
    assert (failure.tasks, failure.codes) == ([0], ["engine_crash"])
    assert failure.messages == ["out of memory 2 times while it ran alone: no memory"]
    dispatch.bring_back(0, slots=1)
    assert dispatch.out(0) == [1]
