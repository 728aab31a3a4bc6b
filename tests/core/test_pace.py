"""A replica that is much slower than its like is replaced, once the figures leave no doubt."""

from __future__ import annotations

from core_kit import DrivenDispatch

from penstock.core import events as ev
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.shape import DispatchLimits, DispatchShape, ReplicaShape


def alike(*like: int, slots: int = 4) -> DrivenDispatch:
    """Replicas of one pool, ready; `like` as in ReplicaShape."""
    dispatch = DrivenDispatch(len(like))
    shapes = tuple(ReplicaShape(f"replica-{index}", 0, like=number) for index, number in enumerate(like))
    dispatch.machine = Dispatch(DispatchShape(("pool-0",), shapes, DispatchLimits()))
    dispatch.ready(*range(len(like)), slots=slots)
    dispatch.submit(*range(2_500))
    return dispatch


def work(dispatch: DrivenDispatch, seconds: int, every_s: dict[int, int], *, begin: int = 0) -> list[int]:
    """For so long replica i answers a request every `every_s[i]` seconds; those that were ended for being slow."""
    slow = []
    for second in range(begin + 1, begin + seconds + 1):
        events: list[ev.Event] = []
        for replica, every in every_s.items():
            out = dispatch.out(replica)
            if out and second % every == 0 and dispatch.machine.replicas[replica].state == "ready":
                events.append(dispatch.answers(replica, out[0], executing=4, progress=second))
        dispatch.tell(*events, ev.Tick(), after_s=1.0)
        slow += [recovered.replica for recovered in dispatch.all(ev.Recovered) if recovered.kind == "slow"]
    return slow


def test_who_works_at_a_tenth_is_replaced_and_what_it_had_goes_elsewhere() -> None:
    dispatch = alike(0, 0, 0)
    assert work(dispatch, 399, {0: 1, 1: 1, 2: 10}) == []
    assert work(dispatch, 1, {0: 1, 1: 1, 2: 10}, begin=399) == [2], "40 answers: enough to tell"
    had = dispatch.out(2)
    kill = dispatch.only(ev.KillReplica)
    assert (kill.replica, kill.dump_stacks) == (2, False)
    assert kill.reason == "it works at 10% of the pace of its like"
    dispatch.lose(2)
    assert "suspect" not in {recovered.kind for recovered in dispatch.all(ev.Recovered)}
    elsewhere = {*dispatch.out(0), *dispatch.out(1), *(request.task for request in waiting(dispatch))}
    assert elsewhere >= set(had)
    assert all(request.crashes == 0 for request in waiting(dispatch))


def waiting(dispatch: DrivenDispatch) -> list[object]:
    return dispatch.machine.pools[0].lanes.requests()  # type: ignore[return-value]


def test_the_second_time_in_ten_minutes_it_is_given_up() -> None:
    dispatch = alike(0, 0, slots=40)
    pace = {0: 1, 1: 8}
    assert work(dispatch, 320, pace) == [1]
    dispatch.lose(1)
    dispatch.tell(ev.Tick(), after_s=1.0)
    dispatch.ready(1, slots=40)
    assert work(dispatch, 320, pace) == [1]
    dispatch.lose(1)
    assert dispatch.machine.replicas[1].state == "failed"
    assert work(dispatch, 300, pace) == [], "the other goes on"


def test_a_third_of_the_pace_is_not_slow() -> None:
    assert work(alike(0, 0, 0), 1000, {0: 1, 1: 1, 2: 3}) == []


def test_who_runs_on_another_device_is_not_compared() -> None:
    assert work(alike(0, 0, 1), 1000, {0: 1, 1: 1, 2: 10}) == []
    assert work(alike(0, 0, -1), 1000, {0: 1, 1: 1, 2: 10}) == []
    assert work(alike(0), 1000, {0: 1}) == []


def test_who_has_few_answers_is_not_judged() -> None:
    """Its requests may be long ones."""
    assert work(alike(0, 0, 0), 900, {0: 1, 1: 1, 2: 25}) == []


def test_long_answers_take_long() -> None:
    """As many tokens a second in a tenth of the answers is no less."""
    dispatch = alike(0, 0)
    slow = []
    for second in range(1, 801):
        events: list[ev.Event] = [dispatch.answers(0, dispatch.out(0)[0], progress=second, tokens_out=10)]
        if second % 10 == 0:
            events.append(dispatch.answers(1, dispatch.out(1)[0], progress=second, tokens_out=100))
        dispatch.tell(*events, ev.Tick(), after_s=1.0)
        slow += [recovered.replica for recovered in dispatch.all(ev.Recovered) if recovered.kind == "slow"]
    assert slow == []


def test_who_has_little_to_do_is_not_slow() -> None:
    """One request at a time, answered at once, every ten seconds; the other is kept busy."""
    dispatch = DrivenDispatch(2, pools=2)
    shapes = (ReplicaShape("busy", 0, like=0), ReplicaShape("idle", 1, like=0))
    dispatch.machine = Dispatch(DispatchShape(("pool-0", "pool-1"), shapes, DispatchLimits()))
    idle = dispatch.machine.replicas[1]
    dispatch.ready(0, 1, slots=4)
    for turn in range(1, 801):
        task = 1000 + turn
        if turn % 10 == 0:
            dispatch.submit(task, pool=1)
            dispatch.tell(dispatch.answers(1, task, progress=turn), after_s=0.1)
        dispatch.tell(ev.Tick(), after_s=1.0)
    assert idle.pace.rate == 0 and idle.pace.closes(DispatchLimits(), 1000.0)
    assert idle.pace.speed > 100 * idle.pace.rate, "what it was given it did at once"


def test_a_window_ends_with_its_process() -> None:
    dispatch = alike(0, 0, 0)
    assert work(dispatch, 395, {0: 1, 1: 1, 2: 10}) == []
    dispatch.lose(2)
    dispatch.tell(ev.Tick(), after_s=1.0)
    dispatch.ready(2)
    assert work(dispatch, 300, {0: 1, 1: 1, 2: 10}) == []


def test_nobody_is_replaced_at_the_end() -> None:
    dispatch = alike(0, 0, 0)
    assert work(dispatch, 395, {0: 1, 1: 1, 2: 10}) == []
    dispatch.tell(ev.DrainRequested(grace_s=1000.0))
    assert work(dispatch, 10, {0: 1, 1: 1, 2: 10}, begin=395) == []
