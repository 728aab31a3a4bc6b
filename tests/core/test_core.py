"""Core: what one machine says to the other, and that a turn goes on until nothing is left to say."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from core_kit import DIAMOND, DrivenDispatch, DrivenFlow

from penstock.core import events as ev
from penstock.core.core import DRAIN_GRACE_S, Core
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.events import Event, Instruction
from penstock.core.flow.flow import Flow
from penstock.core.shape import StepShape
from penstock.errors import InvariantError


class Shell:
    """A core whose instructions are answered from a table, at once."""

    def __init__(self, steps: tuple[StepShape, ...] = (StepShape("generate"),), **limits: int | float) -> None:
        self.core = Core(DrivenFlow(steps, **limits).machine, DrivenDispatch(1).machine)
        self.now = 0.0
        self.done: list[Instruction] = []
        self.answers: dict[type[Instruction], list[Event]] = {}

    def perform(self, instruction: Instruction) -> Iterable[Event]:
        self.done.append(instruction)
        return self.answers.pop(type(instruction), ())

    def turn(self, *events: Event) -> list[type[Instruction]]:
        self.done = []
        self.core.turn(events, self.now, self.perform)
        return [type(instruction) for instruction in self.done]


def rows(*positions: int) -> ev.RowsRead:
    return ev.RowsRead(
        rows=list(positions), sizes_bytes=[1] * len(positions), unreadable=[], next_position=max(positions) + 1
    )


def submit(*tasks: int) -> ev.Submit:
    count = len(tasks)
    return ev.Submit(
        pool=0, step=0, tasks=list(tasks), orders=list(tasks), tokens_in=[1] * count, tokens_out=[1] * count
    )


def test_replicas_are_started_by_the_first_task_and_not_before() -> None:
    shell = Shell()
    assert shell.turn(ev.Tick()) == [ev.ReadRows]
    assert shell.turn(rows(0)) == [ev.StartTasks, ev.ReadRows, ev.StartReplica]
    assert ev.StartReplica not in shell.turn(rows(1))


def test_a_run_without_rows_loads_nothing() -> None:
    shell = Shell()
    shell.answers[ev.ReadRows] = [ev.SourceEnded(total_rows=0)]
    assert shell.turn(ev.Tick()) == [ev.ReadRows, ev.SourceExhausted, ev.Commit]
    commit = shell.done[-1]
    assert shell.turn(ev.Committed(cause=commit.id)) == [ev.PhaseEnded]


def test_one_turn_goes_on_as_long_as_effects_come_at_once() -> None:
    shell = Shell(commit_every_s=0.0)
    shell.answers = {
        ev.ReadRows: [rows(0)],
        ev.StartTasks: [submit(0)],
        ev.StartReplica: [ev.ReplicaReady(replica=0, incarnation=1, slots=1, kv_tokens=0)],
        ev.Deliver: [ev.TasksDone(tasks=[0], growth_bytes=[1])],
    }
    assert ev.Send in shell.turn(ev.Tick())
    assert shell.turn(answer()) == [ev.Deliver, ev.Commit]


def answer() -> ev.AnswersArrived:
    """Of the one request that there is."""
    return ev.AnswersArrived(
        batch=1,
        replica=0,
        incarnation=1,
        tasks=[0],
        attempts=[1],
        codes=None,
        tokens_in=[1],
        tokens_out=[1],
        executing=0,
        waiting=0,
        turnaround_s=0.0,
        progress=100,
    )


def at_work() -> Shell:
    """A core with one request in flight."""
    shell = Shell()
    shell.answers = {
        ev.ReadRows: [rows(0)],
        ev.StartTasks: [submit(0)],
        ev.StartReplica: [ev.ReplicaReady(replica=0, incarnation=1, slots=1, kv_tokens=0)],
        ev.Deliver: [ev.TasksDone(tasks=[0], growth_bytes=[1])],
    }
    assert ev.Send in shell.turn(ev.Tick())
    shell.turn(ev.SourceEnded(total_rows=2))
    return shell


def test_a_stop_waits_for_what_is_in_flight_as_long_as_that_gets_anywhere() -> None:
    """What takes minutes has been paid for by then."""
    shell = at_work()
    assert ev.Drain in shell.turn(ev.StopRequested(reason="stopped"))
    for second in range(1, 400):
        shell.now = float(second)
        beat = ev.HeartbeatArrived(replica=0, incarnation=1, executing=1, waiting=0, progress=second // 10)
        assert shell.turn(beat, ev.Tick()) == []
    assert shell.turn(answer()) == [ev.Deliver, ev.Drained, ev.Commit]
    commit = shell.done[-1]
    assert isinstance(commit, ev.Commit) and commit.finished == [0]
    assert shell.turn(ev.Committed(cause=commit.id)) == [ev.PhaseEnded]


def test_a_stop_does_not_wait_for_what_hangs() -> None:
    shell = at_work()
    shell.turn(ev.StopRequested(reason="stopped"))
    done: list[type[Instruction]] = []
    while ev.KillReplica not in done:
        shell.now += 1.0
        done += shell.turn(ev.HeartbeatArrived(replica=0, incarnation=1, executing=1, waiting=0, progress=0), ev.Tick())
        assert shell.now < 120.0
    lost = ev.ReplicaLost(replica=0, incarnation=1, reason="it was killed", jitter=0.0)
    assert ev.PhaseEnded in shell.turn(lost), "its row is the next start's"


def test_a_stop_does_not_wait_for_ever() -> None:
    shell = at_work()
    shell.turn(ev.StopRequested(reason="stopped"))
    done: list[type[Instruction]] = []
    while ev.PhaseEnded not in done and shell.now < 700.0:
        shell.now += 1.0
        progress = int(shell.now)
        done += shell.turn(
            ev.HeartbeatArrived(replica=0, incarnation=1, executing=1, waiting=0, progress=progress), ev.Tick()
        )
    assert shell.now == DRAIN_GRACE_S == 600.0


def test_a_stop_drains_the_dispatcher_and_its_end_ends_the_phase() -> None:
    shell = Shell()
    shell.turn(ev.Tick())
    shell.turn(rows(0))
    shell.turn(ev.SourceEnded(total_rows=1))
    assert shell.turn(ev.StopRequested(reason="stopped")) == [ev.Drain, ev.Drained, ev.PhaseEnded]


def test_cancelled_tasks_leave_the_dispatcher() -> None:
    shell = Shell(DIAMOND)
    shell.turn(ev.Tick())
    shell.answers[ev.StartTasks] = [submit(0)]
    shell.turn(rows(0))
    shell.turn(ev.TasksDone(tasks=[0], growth_bytes=[0]))
    shell.turn(submit(1, 2))
    assert shell.core.dispatch.pools[0].waiting() == 3
    shell.turn(ev.TasksDead(tasks=[1]))
    assert not shell.core.flow._cancelled, "the dispatcher has said that nothing follows"
    assert [request.task for request in shell.core.dispatch.pools[0].lanes.requests()] == [0, 1]


def test_both_machines_see_the_clock() -> None:
    shell = Shell()
    shell.turn(ev.Tick())
    assert "Tick" in shell.core.flow.story()
    assert "Tick" in shell.core.dispatch.story()


@pytest.mark.parametrize("machine", [Flow, Dispatch])
def test_the_languages_are_apart(machine: type[Flow | Dispatch]) -> None:
    driven = DrivenFlow() if machine is Flow else DrivenDispatch()
    with pytest.raises(InvariantError, match="has no rule for"):
        driven.tell(submit(1) if machine is Flow else rows(1))


def test_a_story_names_only_what_it_is_asked_for_and_is_bounded() -> None:
    flow = DrivenFlow()
    flow.tell(ev.Tick())
    flow.read([3, 4])
    flow.done(3)
    assert "TasksDone(tasks=[3]" in flow.machine.story(3)
    assert "TasksDone" not in flow.machine.story(4)
    for _ in range(1000):
        flow.tell(ev.Tick())
    assert len(flow.machine.story().splitlines()) == 400


def test_a_story_of_long_lists_holds_few_of_them() -> None:
    flow = DrivenFlow()
    for batch in range(30):
        flow.machine._tell(ev.TasksDone(tasks=[batch] * 5_000, growth_bytes=[0] * 5_000))
    held = sum(len(getattr(item, "tasks", [])) for _, item, _ in flow.machine._story)
    assert held <= 10_000, "memory of a run must not grow with what it has decided"
