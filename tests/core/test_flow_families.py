"""Flow where rows have several tasks: children of an expand, branches, joins."""

from __future__ import annotations

import pytest
from core_kit import DIAMOND, DrivenFlow

from penstock.core import events as ev
from penstock.core.events import CHILD_BASE
from penstock.core.shape import StepShape

EXPAND = (StepShape("topics"), StepShape("expand", (0,)), StepShape("write", (1,)))
ENTRIES = (StepShape("left"), StepShape("right"), StepShape("joined", (0, 1)))


def expanding(rows: int = 1) -> DrivenFlow:
    """Rows that have passed the first step of EXPAND."""
    flow = DrivenFlow(EXPAND, commit_every_s=0.0)
    flow.tell(ev.Tick())
    flow.read(range(rows))
    flow.done(*(flow.task(row) for row in range(rows)))
    return flow


def expand(flow: DrivenFlow, row: int, *sizes: int) -> list[int]:
    """The tasks of the children."""
    flow.tell(ev.TaskExpanded(task=flow.task(row, 1), sizes_bytes=list(sizes)))
    adopt = flow.only(ev.Adopt)
    assert (adopt.task, adopt.count) == (flow.task(row, 1), len(sizes))
    start = flow.only(ev.StartTasks)
    assert start.orders == [row] * len(sizes), "children rank as their source row"
    assert start.tasks == [flow.task(adopt.first_row + child, 2) for child in range(len(sizes))]
    return start.tasks


def test_a_source_row_ends_with_its_last_child() -> None:
    flow = expanding()
    first, second = expand(flow, 0, 3, 4)
    flow.done(second)
    assert not flow.all(ev.Commit)
    flow.done(first)
    commit = flow.only(ev.Commit)
    assert commit.ended == [0]
    assert commit.finished == [CHILD_BASE + 1, CHILD_BASE]
    assert tuple(commit.counts.steps.values()) == ((1, 1, 0), (1, 1, 0), (2, 2, 0))


def test_children_fare_apart() -> None:
    flow = expanding()
    first, second, third = expand(flow, 0, 1, 1, 1)
    flow.tell(ev.TasksDead(tasks=[first]))
    assert flow.only(ev.DropRows).rows == [CHILD_BASE]
    flow.tell(ev.TasksFiltered(tasks=[second]))
    flow.done(third)
    commit = flow.only(ev.Commit)
    assert (commit.finished, commit.dead, commit.ended) == ([CHILD_BASE + 2], [CHILD_BASE], [0])
    counts = commit.counts
    assert (counts.out, counts.dead, counts.filtered, counts.dead_sources, counts.ended_sources) == (1, 1, 1, 1, 1)


def test_an_expand_at_the_end_finishes_its_children() -> None:
    flow = DrivenFlow((StepShape("expand"),), commit_every_s=0.0)
    flow.tell(ev.Tick())
    flow.read([0])
    flow.tell(ev.TaskExpanded(task=0, sizes_bytes=[5, 5]))
    assert flow.only(ev.Commit).finished == [CHILD_BASE, CHILD_BASE + 1]


def test_children_of_children_belong_to_the_source_row() -> None:
    flow = DrivenFlow((StepShape("expand"), StepShape("again", (0,)), StepShape("write", (1,))), commit_every_s=0.0)
    flow.tell(ev.Tick())
    flow.read([0])
    flow.tell(ev.TaskExpanded(task=0, sizes_bytes=[1, 1]))
    first, second = flow.only(ev.StartTasks).tasks
    flow.tell(ev.TaskExpanded(task=first, sizes_bytes=[1]))
    grandchild = flow.only(ev.StartTasks)
    assert grandchild.orders == [0]
    flow.tell(ev.TasksFiltered(tasks=[second]))
    assert not flow.all(ev.Commit)
    flow.done(*grandchild.tasks)
    assert flow.only(ev.Commit).finished == [CHILD_BASE + 2]


def test_other_rows_of_the_chain_go_on_beside_families() -> None:
    flow = expanding(3)
    tasks = expand(flow, 1, 1)
    flow.tell(ev.TasksDead(tasks=[flow.task(0, 1)]))
    assert flow.only(ev.Commit).dead == [0]
    flow.tell(ev.TasksFiltered(tasks=[flow.task(2, 1)]))
    flow.done(*tasks)
    assert tuple(flow.machine.tally.counts().steps.values()) == ((3, 3, 0), (3, 1, 1), (1, 1, 0))


# ---------------------------------------------------------------- branches and joins


def branched() -> DrivenFlow:
    """One row in both branches of DIAMOND."""
    flow = DrivenFlow(DIAMOND, commit_every_s=0.0)
    flow.tell(ev.Tick())
    flow.read([0])
    flow.done(flow.task(0))
    assert [(start.step, start.tasks) for start in flow.all(ev.StartTasks)] == [(1, [1]), (2, [2])]
    return flow


def test_a_join_waits_for_both_branches() -> None:
    flow = branched()
    flow.done(flow.task(0, 2), growth=7)
    assert not flow.all(ev.StartTasks)
    flow.done(flow.task(0, 1), growth=5)
    assert flow.only(ev.StartTasks).step == 3
    assert flow.machine.open_bytes == 10 + 1 + 7 + 5
    flow.done(flow.task(0, 3))
    assert flow.only(ev.Commit).finished == [0]
    assert flow.machine.open_bytes == 0


def test_rows_that_begin_in_branches() -> None:
    flow = DrivenFlow(ENTRIES, commit_every_s=0.0)
    flow.tell(ev.Tick())
    flow.read([0, 1])
    assert [start.tasks for start in flow.all(ev.StartTasks)] == [[0, 3], [1, 4]]
    flow.done(0, 1, 3, 4)
    assert flow.only(ev.StartTasks).tasks == [2, 5]


def test_a_row_that_dies_in_one_branch_is_cancelled_in_the_other() -> None:
    flow = branched()
    flow.tell(ev.TasksDead(tasks=[flow.task(0, 1)]))
    assert flow.only(ev.CancelTasks).tasks == [flow.task(0, 2)]
    assert flow.only(ev.DropRows).rows == [0]
    assert flow.only(ev.Commit).dead == [0]


def test_a_row_filtered_after_its_other_branch_was_done() -> None:
    flow = branched()
    flow.done(flow.task(0, 1))
    flow.tell(ev.TasksFiltered(tasks=[flow.task(0, 2)]))
    assert not flow.all(ev.CancelTasks)
    commit = flow.only(ev.Commit)
    assert (commit.ended, commit.finished, commit.dead) == ([0], [], [])
    assert flow.machine.open_bytes == 0


def test_both_branches_die_in_one_event() -> None:
    flow = branched()
    flow.tell(ev.TasksDead(tasks=[flow.task(0, 1), flow.task(0, 2)]))
    assert flow.only(ev.DropRows).rows == [0]
    commit = flow.only(ev.Commit)
    assert (commit.dead, commit.counts.dead) == ([0], 1)


def test_an_end_that_crosses_with_its_cancellation_is_dropped() -> None:
    flow = branched()
    flow.tell(ev.TasksDead(tasks=[flow.task(0, 1)]))
    for event in (
        ev.TasksDone(tasks=[flow.task(0, 2)], growth_bytes=[3]),
        ev.TasksFiltered(tasks=[flow.task(0, 2)]),
        ev.TasksDead(tasks=[flow.task(0, 2)]),
        ev.TaskExpanded(task=flow.task(0, 2), sizes_bytes=[1]),
    ):
        flow.tell(event)
        assert not flow.all(ev.DropRows)
    assert flow.machine.tally.counts().dead == 1
    flow.tell(ev.TasksCancelled(tasks=[flow.task(0, 2)]))
    assert not flow.machine._cancelled, "nothing is remembered once the dispatcher has said that it is over"


def test_children_in_branches_count_from_where_they_were_made() -> None:
    flow = DrivenFlow((StepShape("expand"), *DIAMOND[1:]), commit_every_s=0.0)
    flow.tell(ev.Tick())
    flow.read([0])
    flow.tell(ev.TaskExpanded(task=0, sizes_bytes=[1, 1]))
    first, second = CHILD_BASE, CHILD_BASE + 1
    flow.done(flow.task(first, 1), flow.task(second, 2))
    flow.tell(ev.TasksDead(tasks=[flow.task(first, 2)]))
    flow.done(flow.task(second, 1))
    flow.done(flow.task(second, 3))
    commit = flow.only(ev.Commit)
    assert (commit.finished, commit.dead, commit.ended) == ([second], [first], [0])
    assert list(commit.counts.steps.values()) == [(1, 1, 0), (1, 1, 0), (2, 1, 1), (1, 1, 0)]
    assert flow.machine.open_bytes == 0


OPEN_END = DIAMOND[:3]  # a phase that ends inside of two branches


def open_ended() -> DrivenFlow:
    flow = DrivenFlow(OPEN_END, commit_every_s=0.0)
    flow.tell(ev.Tick())
    flow.read([0])
    flow.done(flow.task(0))
    return flow


def test_a_row_of_a_phase_with_several_exits_is_finished_with_the_last() -> None:
    flow = open_ended()
    flow.done(flow.task(0, 2), growth=7)
    assert not flow.all(ev.Commit)
    assert flow.machine.open_bytes == 10 + 1 + 7
    flow.done(flow.task(0, 1), growth=5)
    commit = flow.only(ev.Commit)
    assert (commit.finished, list(commit.counts.steps.values())) == ([0], [(1, 1, 0), (1, 1, 0), (1, 1, 0)])
    assert flow.machine.open_bytes == 0


def test_a_row_that_dies_after_one_of_several_exits() -> None:
    flow = open_ended()
    flow.done(flow.task(0, 1))
    flow.tell(ev.TasksDead(tasks=[flow.task(0, 2)]))
    commit = flow.only(ev.Commit)
    assert (commit.finished, commit.dead) == ([], [0])
    assert list(commit.counts.steps.values()) == [(1, 1, 0), (0, 0, 0), (1, 0, 1)], "the other branch does not count"
    assert flow.machine.open_bytes == 0


@pytest.mark.parametrize("first", [1, 2])
def test_figures_do_not_depend_on_which_branch_is_first(first: int) -> None:
    flow = branched()
    flow.done(flow.task(0, 1)) if first == 1 else None
    flow.tell(ev.TasksFiltered(tasks=[flow.task(0, 2)]))
    assert list(flow.only(ev.Commit).counts.steps.values()) == [(1, 1, 0), (0, 0, 0), (1, 0, 0), (0, 0, 0)]
