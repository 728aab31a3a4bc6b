"""Once the source is exhausted work is levelled: by expected tokens, with a share kept for who is still loading."""

from __future__ import annotations

from penstock.core import events as ev
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.shape import DispatchLimits, DispatchShape, ReplicaShape

SLOTS = 256


def opened(replicas: int) -> Dispatch:
    shapes = tuple(ReplicaShape(f"writer-{index}", 0) for index in range(replicas))
    dispatch = Dispatch(DispatchShape(("writer",), shapes, DispatchLimits()))
    dispatch.handle([ev.OpenPools(pools=[0])], 0.0)
    return dispatch


def submit(limits: list[int]) -> list[ev.Event]:
    count = len(limits)
    tasks = list(range(count))
    return [
        ev.Submit(pool=0, step=0, tasks=tasks, orders=tasks, tokens_in=[1] * count, tokens_out=limits),
        ev.Exhausted(),
    ]


def ready(replica: int, *, shared: bool = True) -> ev.ReplicaReady:
    return ev.ReplicaReady(replica=replica, incarnation=1, slots=SLOTS, kv_tokens=0, shared=shared)


def work(dispatch: Dispatch, replica: int) -> int:
    return sum(request.tokens_out for request in dispatch.replicas[replica].in_flight.values())


def test_the_first_that_is_ready_leaves_half_of_the_work_to_the_second() -> None:
    dispatch = opened(2)
    limits = [384] * 60 + [16] * 400
    dispatch.handle(submit(limits), 0.0)
    dispatch.handle([ready(0)], 1.0)
    assert 0.45 <= work(dispatch, 0) / sum(limits) <= 0.55, "its slots would hold all of the long ones"
    dispatch.handle([ready(1)], 5.0)
    assert work(dispatch, 0) <= 0.55 * sum(limits), "the rest waits for the other's slots"
    assert len(dispatch.replicas[1].in_flight) >= SLOTS


def test_where_slots_do_not_share_a_device_an_idle_slot_is_filled() -> None:
    dispatch = opened(2)
    limits = [384] * 60 + [16] * 400
    dispatch.handle(submit(limits), 0.0)
    dispatch.handle([ready(0, shared=False)], 1.0)
    dispatch.handle([ready(1, shared=False)], 5.0)
    assert sum(work(dispatch, index) for index in (0, 1)) == sum(limits)


def test_nothing_is_held_back_for_a_replica_that_can_not_load() -> None:
    dispatch = opened(2)
    limits = [64] * 100
    dispatch.handle(submit(limits), 0.0)
    dispatch.handle([ready(0)], 1.0)
    assert len(dispatch.replicas[0].in_flight) < 100
    dispatch.handle([ev.ReplicaLoadFailed(replica=1, incarnation=1, reason="no such model")], 2.0)
    assert len(dispatch.replicas[0].in_flight) == 100


def test_before_the_source_ends_a_ready_replica_is_filled() -> None:
    dispatch = opened(2)
    dispatch.handle(submit([64] * 400)[:1], 0.0)
    dispatch.handle([ready(0)], 1.0)
    assert len(dispatch.replicas[0].in_flight) >= SLOTS
