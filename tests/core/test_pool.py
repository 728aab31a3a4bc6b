"""Pool: who gets the next request, and what is called back."""

from __future__ import annotations

from collections import Counter

from core_kit import request
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.dispatch.pool import Pool
from penstock.core.dispatch.replica import Replica
from penstock.core.shape import DispatchLimits, ReplicaShape


def pool_of(*slots: int, kv_tokens: int = 0, lookahead: int = 1) -> Pool:
    replicas = [Replica(index, ReplicaShape(f"replica-{index}", 0), DispatchLimits()) for index in range(len(slots))]
    pool = Pool(0, "pool", replicas)
    for replica, count in zip(replicas, slots, strict=True):
        if count:
            replica.move("start")
            replica.move("ready")
            replica.became_ready(count, kv_tokens, 0.0)
            replica.lookahead = lookahead
            pool.offer(replica)
            pool.recount(replica)
    return pool


def fill(pool: Pool, count: int, *, out: int = 10) -> dict[int, list[int]]:
    for task in range(count):
        pool.lanes.push(request(task, out=out))
    return {index: tasks for index, (tasks, _) in pool.fill(0.0).items()}


def end(pool: Pool, replica: int, *tasks: int) -> None:
    there = pool.replicas[replica]
    for task in tasks:
        there.refund(there.in_flight[task])
    pool.offer(there)
    pool.recount(there)


def test_most_spare_first() -> None:
    sends = fill(pool_of(4, 2), 4)
    assert sends == {0: [0, 1, 2], 1: [3]}, "five and three to spare: at three each, the first of them"


def test_nobody_gets_more_than_slots_and_lookahead() -> None:
    pool = pool_of(2, 2, lookahead=3)
    sends = fill(pool, 20)
    assert sorted(map(len, sends.values())) == [5, 5]
    assert pool.lanes.count == 10


def test_a_replica_that_is_not_ready_gets_nothing() -> None:
    assert fill(pool_of(0, 1), 5) == {1: [0, 1]}


def test_attempts_count_up() -> None:
    pool = pool_of(1)
    first = request(7)
    pool.lanes.push(first)
    assert pool.fill(0.0) == {0: ([7], [1])}
    end(pool, 0, 7)
    pool.lanes.push(first)
    assert pool.fill(0.0) == {0: ([7], [2])}


def test_tokens_send_a_request_to_who_has_them() -> None:
    pool = pool_of(4, 2, kv_tokens=100)
    there = request(99)
    there.cost = 120
    pool.replicas[0].charge(there)
    pool.offer(pool.replicas[0])
    assert fill(pool, 1, out=50) == {1: [0]}


def test_a_request_that_fits_nowhere_holds_back_those_behind_it() -> None:
    pool = pool_of(4, kv_tokens=100)
    assert fill(pool, 1, out=110) == {0: [0]}
    pool.lanes.push(request(1, out=90))
    pool.lanes.push(request(2, out=1))
    assert pool.fill(0.0) == {}
    assert [made.task for made in pool.lanes.requests()] == [1, 2]
    end(pool, 0, 0)
    assert pool.fill(0.0) == {0: ([1, 2], [1, 1])}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 40), st.integers(1, 4))
def test_filling_levels_out_and_conserves_work(slots: list[int], count: int, lookahead: int) -> None:
    pool = pool_of(*slots, lookahead=lookahead)
    sends = fill(pool, count)
    sent = [task for tasks in sends.values() for task in tasks]
    assert sorted(sent) == list(range(len(sent)))
    room = sum(size + lookahead for size in slots if size)
    assert len(sent) == min(count, room)
    spares = [replica.spare(100) for replica in pool.replicas if replica.state == "ready"]
    assert all(spare >= 0 for spare in spares)
    for replica in pool.replicas:
        assert not replica.in_flight or replica.spare(100) + 1 >= max(spares), "another had more to spare"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_offers_never_forget_a_replica(ends: list[tuple[int, int]]) -> None:
    pool = pool_of(2, 3, 1, 2)
    fill(pool, 60)
    for replica, count in ends:
        there = list(pool.replicas[replica].in_flight)[:count]
        end(pool, replica, *there)
        pool.fill(0.0)
        if pool.lanes.count:
            assert all(replica.spare(100) == 0 for replica in pool.replicas)


@given(st.lists(st.sampled_from((0, 50, 100)), max_size=60), st.lists(st.integers(0, 3), max_size=20))
def test_credit_is_counted_by_class_and_a_higher_one_goes_first(classes: list[int], ends: list[int]) -> None:
    pool = pool_of(2, 3, 1, 2)
    for task, priority in enumerate(classes):
        pool.lanes.push(request(task, priority=priority))
    pool.fill(0.0)
    for replica in ends:
        end(pool, replica, *list(pool.replicas[replica].in_flight)[:1])
        pool.fill(0.0)
        waiting = [made.priority for made in pool.lanes.requests()]
        if waiting:
            assert all(each.spare(waiting[0]) == 0 for each in pool.replicas), "each class sees the same credit"
    for each in pool.replicas:
        assert {key: held for key, held in each.held.items() if held} == dict(
            Counter(made.priority for made in each.in_flight.values())
        )
    out = Counter(made.priority for each in pool.replicas for made in each.in_flight.values())
    waits = {made.priority for made in pool.lanes.requests()}
    assert not any(lower > higher for lower in out for higher in waits) or ends, "none waits behind a lower class"


# ---------------------------------------------------------------- taking back


def test_only_what_idle_slots_can_run_is_called_back() -> None:
    pool = pool_of(2, 2, lookahead=6)
    fill(pool, 16)
    end(pool, 1, *list(pool.replicas[1].in_flight)[:7])
    assert {index: len(tasks) for index, tasks in pool.to_take_back().items()} == {0: 1}
    assert pool.to_take_back() == {}, "what is on its way back is not asked for again"


def test_those_sent_last_come_back() -> None:
    pool = pool_of(1, 2, lookahead=3)
    fill(pool, 9)
    end(pool, 1, *pool.replicas[1].in_flight)
    newest = list(pool.replicas[0].in_flight)[::-1][:2]
    assert pool.to_take_back() == {0: newest}


def test_nothing_is_called_back_while_requests_wait() -> None:
    pool = pool_of(1, 1, lookahead=3)
    fill(pool, 20)
    end(pool, 1, *pool.replicas[1].in_flight)
    assert pool.to_take_back() == {}


def test_a_higher_class_takes_the_place_of_look_ahead_and_no_more() -> None:
    pool = pool_of(2, lookahead=4)
    fill(pool, 10)
    assert pool.to_take_back() == {}, "one class only"
    for task in (20, 21):
        pool.lanes.push(request(task, priority=0))
    assert pool.fill(0.0) == {}
    newest = list(pool.replicas[0].in_flight)[::-1]
    assert pool.to_take_back() == {0: newest[:2]}, "one for each that waits, the last sent first"
    assert pool.to_take_back() == {}, "they are on their way"
    for task in newest[:2]:
        made = pool.replicas[0].in_flight[task]
        pool.replicas[0].refund(made)
        pool.lanes.push(made)
    pool.offer(pool.replicas[0])
    pool.recount(pool.replicas[0])
    assert pool.fill(0.0) == {0: ([20, 21], [1, 1])}
    assert pool.to_take_back() == {}, "a higher class is never called back for a lower one"


def test_an_idle_slot_takes_what_goes_before_a_request_that_is_too_long_for_it() -> None:
    pool = pool_of(1, 2, kv_tokens=100, lookahead=2)
    first = [request(task, out=20) for task in range(3)]
    for made in first:
        pool.appraise(made)
        made.attempt += 1
        pool.replicas[0].charge(made)
    busy = request(50, out=60)
    pool.appraise(busy)
    busy.attempt += 1
    pool.replicas[1].charge(busy)
    for replica in pool.replicas:
        pool.offer(replica)
        pool.recount(replica)
    pool.lanes.push(request(9, out=90))
    assert pool.fill(0.0) == {}, "too long for either"
    assert pool.to_take_back() == {0: [2]}, "the idle slot can run it, and it goes before the one that waits"
    pool.replicas[0].in_flight[1].order = 10
    assert pool.to_take_back() == {}, "what goes after it would only wait behind it"


def test_a_drain_calls_all_look_ahead_back() -> None:
    pool = pool_of(2, 1, lookahead=4)
    fill(pool, 30)
    assert {index: len(tasks) for index, tasks in pool.to_take_back(everything=True).items()} == {0: 4, 1: 4}


def test_long_requests_go_to_who_holds_less_text() -> None:
    pool = pool_of(8, 8)
    for replica in pool.replicas:
        replica.limits = DispatchLimits(most_tokens_out=25)
    given = fill(pool, 10, out=10)
    assert {index: len(tasks) for index, tasks in given.items()} == {0: 2, 1: 2} and pool.lanes.count == 6
    end(pool, 0, *given[0][:2])
    assert sum(len(tasks) for tasks, _ in pool.fill(0.0).values()) == 2
