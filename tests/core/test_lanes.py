"""Lanes: whatever order requests come in, they leave in the order of the one ranking."""

from __future__ import annotations

from itertools import pairwise

from core_kit import request
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.dispatch.lanes import NO_DEADLINE, Lane, Lanes, Request

STEPS = st.integers(0, 2)
REQUESTS = st.builds(
    lambda task, step, order, priority, deadline, out: request(
        task, step=step, order=order, priority=priority, deadline=deadline, out=out
    ),
    st.just(0),
    STEPS,
    st.integers(0, 20),
    st.sampled_from((0, 100)),
    st.sampled_from((NO_DEADLINE, NO_DEADLINE, 1.0, 2.0)),
    st.integers(0, 50),
)


def numbered(requests: list[Request]) -> list[Request]:
    for task, made in enumerate(requests):
        made.task = task
    return requests


def ranking(made: Request) -> tuple[float, ...]:
    return (made.priority, -made.step, made.deadline, made.order)


def pop_all(lanes: Lanes) -> list[Request]:
    found = [lane.pop() for lane in lanes.ranked for _ in range(len(lane))]
    lanes.recount()
    return found


@given(st.lists(REQUESTS, max_size=40))
def test_they_leave_by_rank(requests: list[Request]) -> None:
    lanes = Lanes()
    for made in numbered(requests):
        lanes.push(made)
    assert lanes.count == len(requests)
    left = pop_all(lanes)
    assert [ranking(made) for made in left] == sorted(ranking(made) for made in requests)
    assert lanes.count == 0


@given(st.lists(REQUESTS, max_size=40), st.floats(0.1, 1.0))
def test_longest_first_within_class_deadline_and_step(requests: list[Request], ratio: float) -> None:
    lanes = Lanes()
    half = len(requests) // 2
    for made in numbered(requests)[:half]:
        lanes.push(made)
    lanes.longest_first({0: ratio, 1: ratio, 2: ratio})
    for made in requests[half:]:
        lanes.push(made)
    left = pop_all(lanes)

    groups = [(made.priority, -made.step, made.deadline) for made in left]
    assert groups == sorted(groups)
    for first, second in pairwise(left):
        if (first.priority, first.step, first.deadline) == (second.priority, second.step, second.deadline):
            assert 1 + second.tokens_out <= 1.07 * (2 + first.tokens_out), "longer by more than a size class"
            assert first.tokens_out != second.tokens_out or first.order <= second.order


@given(st.lists(REQUESTS, min_size=1, max_size=40), st.booleans(), st.data())
def test_what_is_cancelled_is_never_popped(requests: list[Request], longest_first: bool, data: st.DataObject) -> None:
    lanes = Lanes()
    gone = data.draw(st.sets(st.integers(0, len(requests) - 1)))
    for made in numbered(requests):
        lanes.push(made)
        if data.draw(st.booleans()):
            for task in gone & {each.task for each in lanes.requests()}:
                lanes.end(requests[task])
    if longest_first:
        lanes.longest_first({})
    for task in gone & {each.task for each in lanes.requests()}:
        lanes.end(requests[task])
    kept = [made for made in requests if made.task not in gone]
    assert lanes.count == len(kept) == len(lanes.requests())
    assert sum(lane.tokens_out for lane in lanes.ranked) == sum(made.tokens_out for made in kept)
    left = pop_all(lanes)
    assert {made.task for made in left} == {made.task for made in kept}
    if not longest_first:
        assert [ranking(made) for made in left] == sorted(ranking(made) for made in kept)


@given(st.lists(st.integers(0, 199), unique=True))
def test_what_is_cancelled_takes_no_more_memory_than_what_waits(tasks: list[int]) -> None:
    lane = Lane()
    waiting = [request(task, order=task % 7) for task in range(200)]
    for made in waiting:
        lane.push(made)
    for task in tasks:
        lane.end(waiting[task])
        assert len(lane._line) + len(lane._heap) <= 2 * len(lane) + 1


@given(st.lists(REQUESTS, min_size=1, max_size=20))
def test_put_back_is_next(requests: list[Request]) -> None:
    lane = Lane()
    for made in numbered(requests):
        made.step, made.priority = 0, 100
        lane.push(made)
    order = []
    while lane:
        first = lane.pop()
        lane.put_back(first)
        assert lane.pop() is first
        order.append(first.order)
    assert len(order) == len(requests)


def test_rows_in_order_need_no_heap() -> None:
    lane = Lane()
    for task in range(100):
        lane.push(request(task))
    assert not lane._heap
    assert [lane.pop().task for _ in range(100)] == list(range(100))
