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


# ---------------------------------------------------------------- suspects


def suspected(replicas: int = 2, tasks: int = 2, slots: int = 8, **limits: int | float) -> DrivenDispatch:
    """Requests 0, 1, ... were in flight when replica 0 died."""
    dispatch = DrivenDispatch(replicas, **{"circuit_deaths": 100, **limits})
    dispatch.ready(0, slots=slots)
    dispatch.submit(*range(tasks))
    dispatch.lose(0)
    assert [suspect.task for suspect in dispatch.machine.pools[0].quarantine.requests()] == list(range(tasks))
    return dispatch


def test_suspects_are_tried_in_halves_one_after_the_other() -> None:
    dispatch = suspected(tasks=4)
    dispatch.bring_back(0)
    assert dispatch.sent() == {0: [0, 1]}
    assert kinds(dispatch) == ["suspect"]
    dispatch.submit(50)
    assert dispatch.sent() == {}, "nobody else is ready"
    dispatch.tell(dispatch.answers(0, 0))
    assert dispatch.sent() == {}, "the half is not through"
    dispatch.tell(dispatch.answers(0, 1))
    assert dispatch.sent() == {0: [2, 3]}
    dispatch.tell(dispatch.answers(0, 2, 3))
    assert dispatch.sent() == {0: [50]}, "back to all"


def test_the_others_go_on_meanwhile() -> None:
    dispatch = suspected()
    dispatch.bring_back(0, slots=8)
    dispatch.tell(ev.ReplicaReady(replica=1, incarnation=1, slots=4, kv_tokens=0))
    dispatch.submit(50, 51)
    assert dispatch.sent() == {1: [50, 51]}


@pytest.mark.parametrize("guilty", [0, 100, 255])
def test_one_of_256_is_found_within_ten_deaths_and_all_others_are_answered(guilty: int) -> None:
    dispatch = suspected(1, tasks=256, slots=256)
    dispatch.machine.replicas[0].restarts.deaths.clear()
    deaths, answered, backoff, failures = 1, set(), False, []
    while dispatch.machine.pools[0].waiting():
        dispatch.bring_back(0, slots=256)
        while out := dispatch.out(0):
            innocent = [task for task in out if task != guilty]
            if guilty in out:
                deaths += 1
                dispatch.lose(0)
                backoff |= bool(dispatch.machine.replicas[0].restarts.deaths)
                failures += dispatch.all(ev.FailRequests)
                break
            answered.update(innocent)
            dispatch.tell(dispatch.answers(0, *innocent))
    assert deaths <= 10 and answered == set(range(256)) - {guilty}
    assert not backoff, "deaths in the lane neither back off nor count for the circuit"
    (failure,) = failures
    assert (failure.tasks, failure.codes, failure.indexes) == ([guilty], ["engine_crash"], [-1])


def test_only_who_kills_alone_twice_is_given_up() -> None:
    dispatch = suspected(1, tasks=2)
    dispatch.bring_back(0)
    assert dispatch.sent() == {0: [0]}
    dispatch.lose(0)
    assert not dispatch.all(ev.FailRequests)
    dispatch.tell(ev.Tick())
    assert dispatch.only(ev.StartReplica), "at once: a death in the suspects' lane does not back off"
    dispatch.tell(ev.ReplicaReady(replica=0, incarnation=3, slots=4, kv_tokens=0))
    assert dispatch.sent() == {0: [0]}
    dispatch.lose(0)
    failure = dispatch.only(ev.FailRequests)
    assert (failure.tasks, failure.codes, failure.indexes) == ([0], ["engine_crash"], [-1])
    assert "died 2 times while it ran this request alone: died" in failure.messages[0]
    dispatch.bring_back(0)
    assert dispatch.sent() == {0: [1]}


def test_a_replica_on_which_nothing_works_is_to_blame_itself() -> None:
    dispatch = suspected(1, tasks=2, slots=1, solo_crashes=100)
    dispatch.machine.replicas[0].restarts.deaths.clear()
    for _ in range(12):
        dispatch.bring_back(0, slots=1)
        dispatch.lose(0)
    assert dispatch.machine.replicas[0].restarts.deaths, "the budget of the lane is spent"
    assert dispatch.machine.pools[0].waiting() == 2


def test_an_answer_in_the_lane_shows_that_the_replica_works() -> None:
    dispatch = suspected(1, tasks=4)
    for _ in range(2):
        dispatch.bring_back(0)
        dispatch.lose(0)
    assert dispatch.machine.pools[0].quarantine.fruitless == 2
    dispatch.bring_back(0)
    dispatch.tell(dispatch.answers(0, dispatch.out(0)[0]))
    assert dispatch.machine.pools[0].quarantine.fruitless == 0


def test_who_was_there_before_the_suspects_is_a_suspect_of_its_own_death_only() -> None:
    """The lane was busy when it was chosen, and dies before it has begun with the suspects."""
    dispatch = DrivenDispatch(2, circuit_deaths=100)
    dispatch.ready(0, 1, slots=1)
    dispatch.submit(0, 1, 2, 3)
    held = dispatch.out(1)
    dispatch.lose(0)
    dispatch.tell(ev.Tick(), after_s=1.0)
    dispatch.tell(ev.ReplicaLoadFailed(replica=0, incarnation=2, reason="no such model"))
    assert dispatch.machine.replicas[1].state == "quarantined" and dispatch.out(1) == held
    dispatch.lose(1)
    assert dispatch.machine.replicas[1].restarts.deaths, "no death of the lane"
    assert all(request.solo_crashes == 0 for request in dispatch.machine.pools[0].quarantine.requests())


@pytest.mark.parametrize("where", ["waiting", "in flight"])
def test_a_suspect_can_be_cancelled(where: str) -> None:
    dispatch = suspected(1, tasks=2)
    if where == "in flight":
        dispatch.bring_back(0)
    dispatch.tell(ev.CancelRequests(tasks=[0]))
    if where == "waiting":
        dispatch.bring_back(0)
    assert dispatch.sent() == {0: [1]}


def test_the_lane_keeps_its_suspects_through_its_deaths() -> None:
    dispatch = suspected(2, tasks=1)
    dispatch.bring_back(0)
    dispatch.tell(ev.ReplicaReady(replica=1, incarnation=1, slots=1, kv_tokens=0))
    dispatch.submit(50, 51, 52, 53)
    dispatch.lose(0)
    assert dispatch.sent() == {}, "the other one has work, and is not to die of it"
    dispatch.tell(ev.Tick())
    dispatch.tell(ev.ReplicaLoadFailed(replica=0, incarnation=3, reason="no such model"))
    dispatch.tell(dispatch.answers(1, *dispatch.out(1)))
    assert dispatch.out(1) == [0], "now it has to"


def test_a_replica_with_nothing_to_do_takes_the_suspects_meanwhile() -> None:
    dispatch = suspected(2, tasks=1)
    dispatch.machine.replicas[0].restarts.load_s = 60.0
    dispatch.tell(ev.ReplicaReady(replica=1, incarnation=1, slots=4, kv_tokens=0))
    assert dispatch.sent() == {1: [0]}


def test_the_last_that_is_ready_serves_while_another_loads() -> None:
    """However long that takes; with nothing else to do it takes the suspects."""
    dispatch = DrivenDispatch(2)
    dispatch.ready(0, 1, slots=1)
    dispatch.submit(0, 1, 2, 3, 4)
    mine = dispatch.out(0)
    dispatch.machine.replicas[0].restarts.load_s = 60.0
    dispatch.lose(0)
    dispatch.tell(dispatch.answers(1, *dispatch.out(1)))
    assert dispatch.out(1) == [4]
    dispatch.tell(dispatch.answers(1, 4))
    assert dispatch.out(1) == mine[:1]


def alone_with_suspects() -> tuple[DrivenDispatch, list[int]]:
    """Replica 0 died with four requests and can't load again; replica 1 has had them to try since 0.5 s."""
    dispatch = DrivenDispatch(2)
    dispatch.ready(0, 1, slots=4)
    dispatch.submit(*range(8))
    mine = dispatch.out(0)
    dispatch.lose(0)
    dispatch.tell(ev.Tick(), after_s=0.5)
    dispatch.tell(ev.ReplicaLoadFailed(replica=0, incarnation=2, reason="no such model"))
    dispatch.submit(*range(50, 70))
    assert not dispatch.sent(), "what it has in flight ends before it tries suspects"
    dispatch.tell(dispatch.answers(1, *dispatch.out(1)), after_s=1.0)
    assert dispatch.out(1) == mine[:2]
    return dispatch, mine


def test_suspects_have_half_of_the_time_of_the_last_that_is_ready() -> None:
    dispatch, mine = alone_with_suspects()
    dispatch.tell(dispatch.answers(1, *mine[:2]), after_s=3.0)
    assert min(dispatch.out(1)) == 50, "others wait, and one group was its turn: it took 4 s"
    dispatch.tell(dispatch.answers(1, 50), ev.Tick(), after_s=3.9)
    assert dispatch.machine.replicas[1].state == "ready"
    dispatch.submit(*range(70, 90))
    dispatch.tell(dispatch.answers(1, 51), ev.Tick(), after_s=0.2)
    assert not dispatch.sent(), "now it is the turn of the suspects again"
    dispatch.tell(dispatch.answers(1, *dispatch.out(1)))
    assert dispatch.out(1) == mine[2:]


def test_a_load_after_a_death_in_the_lane_belongs_to_the_turn_of_the_suspects() -> None:
    dispatch, mine = alone_with_suspects()
    dispatch.lose(1, after_s=1.0)
    dispatch.tell(ev.Tick(), after_s=0.1)
    dispatch.tell(ev.ReplicaReady(replica=1, incarnation=2, slots=4, kv_tokens=0), after_s=18.0)
    assert min(dispatch.out(1)) == 50
    dispatch.tell(dispatch.answers(1, 50), after_s=20.0)
    assert dispatch.sent(), "a turn of 20.1 s"
    dispatch.tell(dispatch.answers(1, *dispatch.out(1)), after_s=0.2)
    assert dispatch.out(1) == mine[:1]


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


def test_out_of_memory_in_the_lane_is_no_death_of_a_suspect() -> None:
    dispatch = suspected(1, tasks=8)
    dispatch.bring_back(0, slots=8)
    for _ in range(2):
        starve(dispatch, 0)
        dispatch.bring_back(0, slots=8)
    requests = [*dispatch.machine.replicas[0].in_flight.values(), *dispatch.machine.pools[0].quarantine.requests()]
    assert len(requests) == 8 and all(request.solo_crashes == 0 for request in requests)


@pytest.mark.parametrize("busy", [False, True])
def test_suspects_do_not_wait_for_a_replica_that_does_not_come_back(busy: bool) -> None:
    """Its node is gone, and it waits for a place: it is starting, for as long as that takes."""
    dispatch = DrivenDispatch(2, load_timeout_s=1500.0)
    dispatch.ready(0, 1, slots=4)
    dispatch.submit(0, 1)
    held = dispatch.out(0)
    assert held and dispatch.out(1)
    dispatch.lose(0)
    if not busy:
        dispatch.tell(dispatch.answers(1, *dispatch.out(1)))
    for _ in range(40):
        dispatch.tell(ev.Tick(), after_s=0.5)
    assert dispatch.machine.replicas[0].state == "starting"
    if busy:
        dispatch.tell(dispatch.answers(1, *(task for task in dispatch.out(1) if task not in held)))
    assert dispatch.out(1) == held
