"""Flow through a chain: admission, steps, ends, commits, stops, limits, resume."""

from __future__ import annotations

import pytest
from core_kit import CHAIN, DrivenFlow

from penstock.core import events as ev
from penstock.core.counts import Counts
from penstock.core.shape import DEAD_ROW_BYTES, Progress
from penstock.errors import InvariantError


def reading(flow: DrivenFlow) -> DrivenFlow:
    flow.tell(ev.Tick())
    return flow


def test_it_asks_for_rows_once_at_a_time() -> None:
    flow = reading(DrivenFlow(read_rows=8))
    assert flow.only(ev.ReadRows).max_rows == 8
    assert flow.tell(ev.Tick()) == []


def test_rows_become_tasks_of_the_first_step() -> None:
    flow = reading(DrivenFlow(CHAIN))
    flow.read(range(3))
    start = flow.only(ev.StartTasks)
    assert (start.step, start.tasks, start.orders) == (0, [0, 3, 6], [0, 1, 2])


def test_a_row_passes_every_step_and_is_committed() -> None:
    flow = reading(DrivenFlow(CHAIN))
    flow.read([0])
    for step in range(3):
        flow.done(flow.task(0, step))
    flow.tell(ev.Tick(), after_s=1.0)
    commit = flow.only(ev.Commit)
    assert (commit.finished, commit.ended, commit.watermark) == ([0], [0], 1)
    assert tuple(commit.counts.steps.values()) == ((1, 1, 0), (1, 1, 0), (1, 1, 0))


def test_the_window_bounds_open_rows() -> None:
    flow = reading(DrivenFlow(window_rows=10, read_rows=8))
    flow.read(range(8))
    assert flow.only(ev.ReadRows).max_rows == 2
    flow.read(range(8, 10))
    assert not flow.all(ev.ReadRows)
    flow.done(*range(6))
    assert flow.only(ev.ReadRows).max_rows == 6


def test_the_window_bounds_bytes() -> None:
    flow = reading(DrivenFlow(window_bytes=100))
    flow.read(range(3), size=40)
    assert not flow.all(ev.ReadRows)
    flow.done(0, 1)
    assert flow.all(ev.ReadRows)


def test_one_row_larger_than_the_window_still_runs() -> None:
    flow = reading(DrivenFlow(window_bytes=100))
    flow.read([0], size=5000)
    assert not flow.all(ev.ReadRows)
    flow.done(0)
    assert flow.all(ev.ReadRows)


def test_reach_bounds_how_far_the_newest_is_ahead() -> None:
    flow = reading(DrivenFlow(reach=8, window_rows=100, commit_every_s=0.0))
    flow.read(range(8))
    assert not flow.all(ev.ReadRows)
    flow.done(*range(1, 8))
    flow.committed(flow.only(ev.Commit))
    assert not flow.all(ev.ReadRows), "row 0 is open"
    flow.done(0)
    assert flow.only(ev.Commit).watermark == 8
    assert flow.only(ev.ReadRows).max_rows == 8


def test_admission_waits_for_a_slow_disk() -> None:
    flow = reading(DrivenFlow(commit_rows=4, read_rows=4))
    flow.read(range(4))
    flow.read(range(4, 8))
    flow.done(*range(8))
    flow.read(range(8, 12))
    commit = flow.all(ev.Commit)
    assert not commit, "one is out"
    flow.done(*range(8, 12))
    flow.read(range(12, 16))
    flow.done(*range(12, 16))
    assert not flow.all(ev.ReadRows)


def test_filtered_and_dead_rows_leave_memory_at_once() -> None:
    flow = reading(DrivenFlow(CHAIN))
    flow.read(range(3))
    flow.done(*(flow.task(row) for row in range(3)))
    flow.tell(ev.TasksFiltered(tasks=[flow.task(0, 1)]))
    assert flow.only(ev.DropRows).rows == [0]
    flow.tell(ev.TasksDead(tasks=[flow.task(1, 1)]))
    assert flow.only(ev.DropRows).rows == [1]
    flow.tell(ev.Tick(), after_s=1.0)
    commit = flow.only(ev.Commit)
    assert (commit.ended, commit.finished, commit.dead) == ([0, 1], [], [1])
    assert (commit.counts.filtered, commit.counts.dead) == (1, 1)


def test_unreadable_rows_are_dead_without_a_task() -> None:
    flow = reading(DrivenFlow())
    flow.read([0, 2], unreadable=[1])
    assert flow.only(ev.StartTasks).tasks == [0, 2]
    flow.tell(ev.Tick(), after_s=1.0)
    assert flow.only(ev.Commit).dead == [1]


def test_the_last_commit_is_final_and_ends_the_phase() -> None:
    flow = reading(DrivenFlow())
    flow.read([0, 1])
    flow.tell(ev.SourceEnded(total_rows=2))
    assert flow.only(ev.SourceExhausted)
    flow.done(0, 1)
    commit = flow.only(ev.Commit)
    assert (commit.final, commit.publish_to, commit.total_rows) == (True, 2, 2)
    flow.committed(commit)
    assert flow.only(ev.PhaseEnded).status == "done"
    assert flow.tell(ev.Tick()) == []


def test_an_empty_source_is_done() -> None:
    flow = reading(DrivenFlow())
    flow.tell(ev.SourceEnded(total_rows=0))
    flow.committed(flow.only(ev.Commit))
    assert flow.only(ev.PhaseEnded).status == "done"


# ---------------------------------------------------------------- stops and limits


def test_a_stop_commits_what_has_ended() -> None:
    flow = reading(DrivenFlow())
    flow.read(range(4))
    flow.tell(ev.StopRequested(reason="stopped"))
    assert flow.only(ev.Drain)
    flow.done(0, 2)
    assert not flow.all(ev.ReadRows)
    flow.tell(ev.SourceEnded(total_rows=4), ev.DispatchDrained())
    commit = flow.only(ev.Commit)
    assert (commit.ended, commit.watermark, commit.publish_to, commit.final) == ([0, 2], 1, 1, False)
    flow.committed(commit)
    assert flow.only(ev.PhaseEnded).status == "stopped"


def test_a_stop_waits_for_the_read_that_is_out() -> None:
    flow = reading(DrivenFlow())
    flow.tell(ev.StopRequested(reason="failed"), ev.DispatchDrained())
    assert not flow.all(ev.PhaseEnded)
    flow.read([], unreadable=[0])
    flow.committed(flow.only(ev.Commit))
    assert flow.only(ev.PhaseEnded).status == "failed"


def test_only_the_first_reason_to_stop_counts() -> None:
    flow = reading(DrivenFlow())
    flow.tell(ev.StopRequested(reason="stopped"), ev.StopRequested(reason="failed"))
    assert len(flow.all(ev.Drain)) == 1
    flow.tell(ev.SourceEnded(total_rows=0), ev.DispatchDrained())
    assert flow.only(ev.PhaseEnded).status == "stopped"


def test_a_stop_after_the_last_commit_was_cut_changes_nothing() -> None:
    flow = reading(DrivenFlow())
    flow.read([0])
    flow.tell(ev.SourceEnded(total_rows=1))
    flow.done(0)
    commit = flow.only(ev.Commit)
    assert flow.tell(ev.StopRequested(reason="stopped")) == []
    flow.committed(commit)
    assert flow.only(ev.PhaseEnded).status == "done"


def test_too_many_dead_rows_stop_the_run() -> None:
    flow = reading(DrivenFlow(max_dead=1))
    flow.read(range(4))
    flow.tell(ev.TasksDead(tasks=[0]))
    assert not flow.all(ev.Drain)
    flow.tell(ev.TasksDead(tasks=[1]))
    assert flow.only(ev.Drain)
    flow.done(2)
    flow.tell(ev.SourceEnded(total_rows=4), ev.DispatchDrained())
    flow.committed(flow.only(ev.Commit))
    assert flow.only(ev.PhaseEnded).status == "too_many_dead"


def test_rejected_rows_are_judged_as_dead() -> None:
    flow = reading(DrivenFlow(max_dead=0))
    flow.read([0])
    flow.tell(ev.SourceEnded(total_rows=1))
    flow.done(0)
    flow.committed(flow.only(ev.Commit), moved=Counts(out=-1, dead=1, dead_sources=1))
    assert flow.only(ev.Drain)
    flow.tell(ev.DispatchDrained())
    assert flow.only(ev.PhaseEnded).status == "too_many_dead"


# ---------------------------------------------------------------- taking up a run


def test_a_resume_goes_on_where_the_ledger_stands() -> None:
    before = Progress(5, (7,), Counts(out=6, ended_sources=6, steps={"generate": (6, 6, 0)}))
    flow = reading(DrivenFlow(progress=before))
    flow.read([5, 6, 8])
    flow.tell(ev.SourceEnded(total_rows=9))
    flow.done(5, 6, 8)
    commit = flow.only(ev.Commit)
    assert (commit.ended, commit.watermark, commit.final) == ([5, 6, 8], 9, True)
    assert (commit.counts.out, commit.counts.rows_in, commit.counts.ended_sources) == (9, 9, 9)


def test_what_a_resume_passes_over_does_not_carry_it_beyond_its_reach() -> None:
    before = Progress(0, tuple(range(1, 30)), Counts(out=29, ended_sources=29))
    flow = reading(DrivenFlow(progress=before, reach=32, read_rows=8))
    assert flow.only(ev.ReadRows).max_rows == 32 - 29
    flow.read([0, 30, 31])
    assert not flow.all(ev.ReadRows)


# ---------------------------------------------------------------- what can't be


@pytest.mark.parametrize(
    "event",
    [
        ev.TasksDone(tasks=[5], growth_bytes=[0]),
        ev.TasksDead(tasks=[5]),
        ev.TasksFiltered(tasks=[5]),
        ev.TaskExpanded(task=5, sizes_bytes=[1]),
    ],
)
def test_the_end_of_a_task_that_is_not_open_is_a_bug_with_a_story(event: ev.Event) -> None:
    flow = reading(DrivenFlow())
    flow.read([0])
    with pytest.raises(InvariantError, match="task 5 ended, but it is not open"):
        flow.tell(event)


def test_a_row_read_twice_is_a_bug() -> None:
    flow = reading(DrivenFlow())
    flow.read([0, 1])
    with pytest.raises(InvariantError, match="admitted twice"):
        flow.read([1])


def test_an_event_of_the_other_machine_is_a_bug() -> None:
    with pytest.raises(InvariantError, match="flow has no rule for Exhausted"):
        DrivenFlow().tell(ev.Exhausted())


def test_dead_rows_count_for_a_commit_by_what_their_records_keep() -> None:
    flow = reading(DrivenFlow(commit_bytes=1000, commit_every_s=100.0))
    flow.read(range(4), size=400)
    flow.tell(ev.TasksDead(tasks=[0, 1]))
    assert not flow.all(ev.Commit)
    flow.tell(ev.TasksDead(tasks=[2]))
    assert flow.only(ev.Commit).dead == [0, 1, 2]
    assert DEAD_ROW_BYTES >= 4 * 65_536  # of runtime/rows/store.py, in the widest characters


def test_dead_children_count_as_well() -> None:
    flow = reading(DrivenFlow(CHAIN, commit_bytes=1000, commit_every_s=100.0))
    flow.read([0], size=10)
    flow.tell(ev.TaskExpanded(task=0, sizes_bytes=[400, 400, 400]))
    adopted = flow.only(ev.Adopt).first_row
    flow.tell(ev.TasksDead(tasks=[flow.task(adopted + child, 1) for child in range(3)]))
    assert len(flow.only(ev.Commit).dead) == 3 and flow.machine.open_bytes == 0
