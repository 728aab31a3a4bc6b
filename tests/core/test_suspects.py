"""Suspects: what was in flight at a death is tried apart, and the last replica that is ready serves meanwhile."""

from __future__ import annotations

import pytest
from core_kit import DrivenDispatch

from penstock.core import events as ev


def kinds(dispatch: DrivenDispatch) -> list[str]:
    return [recovered.kind for recovered in dispatch.all(ev.Recovered)]


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


def test_a_pause_is_nobodys_turn() -> None:
    """Paused for an hour within the suspects' turn of 2 s: the others have 2 s, and not an hour, before the next."""
    dispatch, mine = alone_with_suspects()
    dispatch.tell(ev.PausePool(pool=0), after_s=1.0)
    dispatch.tell(dispatch.answers(1, *mine[:2]), after_s=10.0)
    dispatch.tell(ev.ResumePool(pool=0), after_s=3590.0)
    assert min(dispatch.out(1)) == 50
    dispatch.tell(ev.PausePool(pool=0), after_s=0.1)
    dispatch.tell(ev.ResumePool(pool=0), after_s=5.0)
    dispatch.tell(dispatch.answers(1, *range(50, 55)), ev.Tick(), after_s=1.8)
    assert dispatch.sent(), "their 2 s are not over"
    dispatch.tell(dispatch.answers(1, *dispatch.out(1)), after_s=0.2)
    assert dispatch.out(1) == mine[2:]


def test_a_death_after_the_last_suspect_was_answered_is_the_replicas_own() -> None:
    """The pool is paused, so that it is still in the lane, with nothing in flight."""
    dispatch, mine = alone_with_suspects()
    dispatch.tell(ev.PausePool(pool=0))
    dispatch.tell(dispatch.answers(1, *mine[:2]))
    dispatch.lose(1)
    assert len(dispatch.machine.replicas[1].restarts.deaths) == 1


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


def starve(dispatch: DrivenDispatch, replica: int) -> None:
    incarnation = dispatch.incarnation(replica)
    dispatch.tell(
        ev.ReplicaLost(replica=replica, incarnation=incarnation, reason="no memory", jitter=0.0, out_of_memory=True)
    )


def test_out_of_memory_in_the_lane_is_no_death_of_a_suspect() -> None:
    dispatch = suspected(1, tasks=8)
    dispatch.bring_back(0, slots=8)
    for _ in range(2):
        starve(dispatch, 0)
        dispatch.bring_back(0, slots=8)
    requests = [*dispatch.machine.replicas[0].in_flight.values(), *dispatch.machine.pools[0].quarantine.requests()]
    assert len(requests) == 8 and all(request.solo_crashes == 0 for request in requests)


def test_a_suspect_that_is_called_back_stays_one() -> None:
    dispatch = suspected(tasks=4)
    dispatch.bring_back(0)
    dispatch.tell(ev.ReplicaReady(replica=1, incarnation=1, slots=4, kv_tokens=0))
    assert dispatch.out(0) == [0, 1]
    dispatch.tell(ev.SlotsChanged(replica=0, incarnation=2, slots=1))
    assert dispatch.only(ev.TakeBackFrom).tasks == [1]
    dispatch.tell(dispatch.answers(0, returned=[1]))
    assert dispatch.sent() == {}, "it does not run on the other one, where it might end innocents"
    dispatch.tell(dispatch.answers(0, 0))
    assert dispatch.sent() == {0: [1]}
