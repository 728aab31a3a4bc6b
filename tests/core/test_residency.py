"""When replicas are loaded: pools open and close, sleep and wake; a start that runs out of memory steps down."""

from __future__ import annotations

import msgspec
from core_kit import CHAIN, DrivenDispatch, DrivenFlow

from penstock.core import events as ev
from penstock.core.core import Core
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.flow.flow import Flow
from penstock.core.shape import DispatchLimits, DispatchShape, Progress, ReplicaShape


def made(*replicas: ReplicaShape, pools: int = 2, **limits: float) -> DrivenDispatch:
    """A dispatcher with these replicas, checked after every call as always."""
    driven = DrivenDispatch(0, pools=pools)
    shape = DispatchShape(tuple("ABC"[:pools]), replicas, DispatchLimits(**limits))  # type: ignore[arg-type]
    driven.machine = Dispatch(shape)
    return driven


def ready(driven: DrivenDispatch, replica: int) -> None:
    driven.tell(ev.ReplicaReady(replica=replica, incarnation=driven.incarnation(replica), slots=2, kv_tokens=0))


def lost(driven: DrivenDispatch, replica: int) -> list[object]:
    found = driven.tell(
        ev.ReplicaLost(replica=replica, incarnation=driven.incarnation(replica), reason="gone", jitter=0.0)
    )
    return list(found)


def kinds(found: list[object]) -> list[str]:
    return [type(each).__name__ for each in found]


TWO = (ReplicaShape("a", 0), ReplicaShape("b", 1))


def test_what_a_phase_does_without_leaves_before_the_next_one_starts() -> None:
    driven = made(*TWO)
    driven.tell(ev.OpenPools(pools=[0]))
    ready(driven, 0)
    found = driven.tell(ev.ClosePools(pools=[0], phase=1))
    assert kinds(found) == ["KillReplica"] and found[0].reason == "phase finished"
    assert kinds(lost(driven, 0)) == ["Recovered", "PoolsClosed"]
    assert kinds(driven.tell(ev.OpenPools(pools=[1], phase=1))) == ["StartReplica"]
    driven.tell(ev.Tick(), after_s=1000.0)  # the first does not come back by itself
    assert driven.machine.replicas[0].state == "off"


def test_closing_nothing_is_done_at_once() -> None:
    assert kinds(made(*TWO).tell(ev.ClosePools(pools=[]))) == ["PoolsClosed"]


def test_replicas_leave_from_any_state() -> None:
    driven = made(*(ReplicaShape(f"a{index}", 0) for index in range(3)))
    driven.tell(ev.OpenPools(pools=[0]))
    ready(driven, 1)
    lost(driven, 2)  # waits to start again
    found = driven.tell(ev.ClosePools(pools=[0]))
    assert [each.replica for each in found] == [0, 1]
    ready(driven, 0)  # too late
    assert kinds(lost(driven, 0)) == ["Recovered"]
    assert kinds(lost(driven, 1))[-1] == "PoolsClosed"
    assert [replica.state for replica in driven.machine.replicas] == ["off"] * 3
    assert driven.machine.replicas[0].restarts.deaths == driven.machine.replicas[1].restarts.deaths


def test_a_pool_that_is_used_again_sleeps_and_wakes() -> None:
    driven = made(*TWO)
    driven.tell(ev.OpenPools(pools=[0]))
    ready(driven, 0)
    assert kinds(driven.tell(ev.ClosePools(pools=[0], sleep=[0]))) == ["SleepReplica"]
    assert kinds(driven.tell(ev.ReplicaAsleep(replica=0, incarnation=1))) == ["PoolsClosed"]
    driven.tell(ev.OpenPools(pools=[1]))
    ready(driven, 1)
    driven.tell(ev.ClosePools(pools=[1]))
    lost(driven, 1)
    (wake,) = driven.tell(ev.OpenPools(pools=[0]))
    assert isinstance(wake, ev.WakeReplica) and wake.incarnation == 1
    ready(driven, 0)
    assert kinds(driven.submit(7)) == ["Send"]


def test_a_replica_lost_asleep_is_loaded_when_it_is_needed() -> None:
    driven = made(*TWO)
    driven.tell(ev.OpenPools(pools=[0]))
    ready(driven, 0)
    driven.tell(ev.ClosePools(pools=[0], sleep=[0]))
    driven.tell(ev.ReplicaAsleep(replica=0, incarnation=1))
    lost(driven, 0)
    (start,) = driven.tell(ev.OpenPools(pools=[0]))
    assert isinstance(start, ev.StartReplica) and start.incarnation == 2


def test_who_does_not_fall_asleep_is_ended_and_who_does_not_wake_is_loaded_anew() -> None:
    driven = made(ReplicaShape("a", 0), ReplicaShape("b", 0), pools=1, sleep_timeout_s=60.0)
    driven.tell(ev.OpenPools(pools=[0]))
    ready(driven, 0)
    ready(driven, 1)
    driven.tell(ev.ClosePools(pools=[0], sleep=[0]))
    driven.tell(ev.ReplicaAsleep(replica=0, incarnation=1))
    (kill,) = driven.tell(ev.Tick(), after_s=60.5)
    assert isinstance(kill, ev.KillReplica) and "did not fall asleep in 60 s" in kill.reason
    assert kinds(lost(driven, 1))[-1] == "PoolsClosed"
    driven.tell(ev.OpenPools(pools=[0]))
    (kill,) = driven.tell(ev.ReplicaLoadFailed(replica=0, incarnation=1, reason="no memory"))
    assert isinstance(kill, ev.KillReplica) and "did not wake up: no memory" in kill.reason
    lost(driven, 0)
    assert "StartReplica" in kinds(driven.tell(ev.Tick(), after_s=2.0))


def test_a_lazy_pool_starts_with_its_first_request() -> None:
    driven = made(*TWO)
    assert [each.replica for each in driven.tell(ev.OpenPools(pools=[0, 1], lazy=[1]))] == [0]
    driven.tell(ev.Tick(), after_s=100.0)
    assert driven.machine.replicas[1].state == "off"
    (start,) = driven.submit(5, pool=1)
    assert isinstance(start, ev.StartReplica) and start.replica == 1


def test_a_lazy_pool_of_both_phases_waits_until_others_have_left() -> None:
    """Its first request comes in the second phase, while the memory that it needs is still another's."""
    driven = made(*TWO)
    driven.tell(ev.OpenPools(pools=[0, 1], lazy=[1]))
    ready(driven, 0)
    driven.tell(ev.ClosePools(pools=[0], phase=1))
    assert not driven.submit(5, pool=1)
    assert kinds(lost(driven, 0))[-2:] == ["PoolsClosed", "StartReplica"]


def test_a_replica_is_loaded_in_its_phases_only() -> None:
    driven = made(ReplicaShape("a0", 0, phases=(0, 1)), ReplicaShape("a1", 0, phases=(1,)), pools=1)
    assert [each.replica for each in driven.tell(ev.OpenPools(pools=[0], phase=0))] == [0]
    ready(driven, 0)
    assert kinds(driven.tell(ev.ClosePools(pools=[], phase=1))) == ["PoolsClosed"]
    assert [each.replica for each in driven.tell(ev.OpenPools(pools=[0], phase=1))] == [1]
    ready(driven, 1)
    (kill,) = driven.tell(ev.ClosePools(pools=[], phase=0))
    assert kill.replica == 1


# ---------------------------------------------------------------- the ladder


def starved(driven: DrivenDispatch, replica: int) -> list[object]:
    event = ev.ReplicaLoadFailed(
        replica=replica, incarnation=driven.incarnation(replica), reason="CUDA out of memory", out_of_memory=True
    )
    return list(driven.tell(event))


def test_out_of_memory_at_the_start_steps_down_without_counting_as_a_death() -> None:
    driven = made(ReplicaShape("a", 0, rungs=3), pools=1)
    driven.tell(ev.OpenPools(pools=[0]))
    for rung in (1, 2, 3):
        found = starved(driven, 0)
        assert kinds(found) == ["Recovered", "KillReplica"]
        assert (found[0].kind, found[0].count) == ("ladder", rung)
        lost(driven, 0)
        (start,) = [each for each in driven.tell(ev.Tick(), after_s=0.1) if isinstance(each, ev.StartReplica)]
        assert start.rung == rung
    assert not driven.machine.replicas[0].restarts.deaths
    ready(driven, 0)
    lost(driven, 0)
    (start,) = [each for each in driven.tell(ev.Tick(), after_s=5.0) if isinstance(each, ev.StartReplica)]
    assert start.rung == 3, "what worked is kept"


def test_below_the_last_rung_the_pool_is_down_for_want_of_memory() -> None:
    driven = made(ReplicaShape("a", 0, rungs=1), ReplicaShape("b", 0), pools=1)
    driven.tell(ev.OpenPools(pools=[0]))
    assert starved(driven, 1) == []  # b has no ladder
    starved(driven, 0)
    lost(driven, 0)
    driven.tell(ev.Tick(), after_s=0.1)
    (down,) = starved(driven, 0)
    assert isinstance(down, ev.PoolDown) and down.out_of_memory


# ---------------------------------------------------------------- phases


def test_the_next_phase_opens_its_pools_when_those_before_have_left() -> None:
    flow, dispatch = DrivenFlow(CHAIN[:2]).machine, made(*TWO).machine
    core = Core(flow, dispatch, pools=[0])
    told: list[object] = []

    def perform(instruction: ev.Instruction) -> list[ev.Event]:
        told.append(instruction)
        if isinstance(instruction, ev.StartTasks):
            step, tasks = instruction.step, instruction.tasks
            lists = {"orders": tasks, "tokens_in": [1] * len(tasks), "tokens_out": [1] * len(tasks)}
            return [ev.Submit(pool=step, step=step, tasks=tasks, **lists)]
        return []

    def turn(*events: ev.Event) -> list[str]:
        told.clear()
        core.turn(events, 1.0, perform)
        return kinds(told)

    rows = ev.RowsRead(rows=[0], sizes_bytes=[1], unreadable=[], next_position=1)
    turn(ev.Tick())
    assert "StartReplica" in turn(rows)
    turn(ev.ReplicaReady(replica=0, incarnation=1, slots=1, kv_tokens=0))
    core.begin(DrivenFlow(CHAIN[:2]).machine, pools=[1], phase=1)
    assert turn(ev.Tick()) == ["KillReplica", "ReadRows"]
    found = turn(rows)
    assert "StartTasks" in found and "StartReplica" not in found
    gone = ev.ReplicaLost(replica=0, incarnation=1, reason="gone", jitter=0.0)
    assert turn(gone)[-2:] == ["PoolsClosed", "StartReplica"]


def test_a_flow_runs_its_stretch_of_the_steps() -> None:
    flow = DrivenFlow(CHAIN)
    flow.machine = Flow(msgspec.structs.replace(flow.machine.shape, begin=1, end=2), Progress(), 0.0)
    flow.read([0, 1])
    (start,) = flow.all(ev.StartTasks)
    assert (start.step, start.tasks) == (1, [1, 4])  # row * 3 + step, as in every phase
    flow.done(1)
    flow.tell(ev.TasksDead(tasks=[4]))
    assert tuple(flow.machine.tally.counts().steps.values()) == ((0, 0, 0), (2, 1, 1), (0, 0, 0))
    assert flow.machine.commits.finished == [0]


def test_a_pool_whose_replicas_of_this_phase_are_given_up_is_down() -> None:
    driven = made(ReplicaShape("now", 0, phases=(0,)), ReplicaShape("later", 0, phases=(1,)), pools=1)
    driven.tell(ev.OpenPools(pools=[0], phase=0))
    found = driven.tell(ev.ReplicaLoadFailed(replica=0, incarnation=1, reason="bad model"))
    assert kinds(found) == ["PoolDown"], "the other one would never come to its help"


def test_a_pool_opens_down_where_its_replicas_were_given_up_before() -> None:
    driven = made(ReplicaShape("both", 0), ReplicaShape("first", 0, phases=(0,)), pools=1)
    driven.tell(ev.OpenPools(pools=[0], phase=0))
    ready(driven, 1)
    assert kinds(driven.tell(ev.ReplicaLoadFailed(replica=0, incarnation=1, reason="bad model"))) == []
    driven.tell(ev.ClosePools(pools=[], phase=1))
    lost(driven, 1)
    assert "PoolDown" in kinds(driven.tell(ev.OpenPools(pools=[0], phase=1)))


def test_nothing_is_started_again_while_others_leave() -> None:
    driven = made(*TWO, restart_backoff_s=1.0)
    driven.tell(ev.OpenPools(pools=[0, 1]))
    ready(driven, 0)
    ready(driven, 1)
    lost(driven, 1)
    driven.tell(ev.ClosePools(pools=[0], phase=1))
    assert kinds(driven.tell(ev.Tick(), after_s=10.0)) == []
    lost(driven, 0)
    assert kinds(driven.tell(ev.Tick())) == ["StartReplica", "Recovered"]


def test_memory_that_ran_out_while_a_replica_was_being_ended_still_counts_for_its_ladder() -> None:
    driven = made(ReplicaShape("a", 0, rungs=1), pools=1, load_timeout_s=5.0)
    driven.tell(ev.OpenPools(pools=[0]))
    assert "KillReplica" in kinds(driven.tell(ev.Tick(), after_s=6.0))
    driven.tell(ev.ReplicaLoadFailed(replica=0, incarnation=1, reason="out of memory", out_of_memory=True))
    lost(driven, 0)
    (started,) = [each for each in driven.tell(ev.Tick(), after_s=1.0) if isinstance(each, ev.StartReplica)]
    assert started.rung == 1
