"""Results that were paid for are committed before their rows end."""

from __future__ import annotations

from core_kit import DrivenFlow

from penstock.core import events as ev
from penstock.core.events import CHILD_BASE
from penstock.core.shape import StepShape

CHAIN = (StepShape("draft", paid=True), StepShape("tidy", (0,)), StepShape("judge", (1,), paid=True))
FAMILY = (StepShape("topics", paid=True), StepShape("write", (0,), paid=True))


def test_a_commit_has_what_unfinished_rows_have_paid_for() -> None:
    flow = DrivenFlow(CHAIN)
    flow.tell(ev.Tick())
    flow.read(range(4))
    flow.done(flow.task(2), flow.task(0))
    flow.done(flow.task(0, 1))  # it costs nothing
    commit = _after_a_second(flow)
    assert (commit.partial, commit.ended, commit.watermark) == ([0, 2], [], 0)
    flow.committed(commit)
    flow.done(flow.task(2, 1), flow.task(1))
    assert _after_a_second(flow).partial == [1], "nothing is new of row 2"


def test_rows_that_end_leave_nothing_apart() -> None:
    flow = DrivenFlow(CHAIN)
    flow.tell(ev.Tick())
    flow.read(range(3))
    flow.done(*(flow.task(row) for row in range(3)))
    flow.done(flow.task(0, 1), flow.task(1, 1))
    flow.done(flow.task(0, 2))
    flow.tell(ev.TasksDead(tasks=[flow.task(1, 2)]))
    commit = _after_a_second(flow)
    assert (commit.partial, commit.ended) == ([2], [0, 1])


def test_free_steps_alone_wait_for_the_end_of_their_rows() -> None:
    flow = DrivenFlow((StepShape("tidy"), StepShape("judge", (0,), paid=True)))
    flow.tell(ev.Tick())
    flow.read(range(2))
    flow.done(flow.task(0))
    assert not flow.tell(ev.Tick(), after_s=1.0)


def test_the_children_of_an_open_family_count() -> None:
    flow = DrivenFlow(FAMILY)
    flow.tell(ev.Tick())
    flow.read([0])
    flow.tell(ev.TaskExpanded(task=flow.task(0), sizes_bytes=[1, 1, 1]))
    commit = _after_a_second(flow)
    assert commit.partial == [0], "what it was expanded to is known before any child"
    flow.committed(commit)
    flow.done((CHILD_BASE + 1) * 2 + 1)
    commit = _after_a_second(flow)
    assert (commit.partial, commit.finished) == ([0], [])
    flow.committed(commit)
    flow.tell(ev.TasksDead(tasks=[CHILD_BASE * 2 + 1]))
    flow.done((CHILD_BASE + 2) * 2 + 1)
    commit = _after_a_second(flow)
    assert (commit.partial, commit.ended) == ([], [0])


def test_a_stop_commits_what_was_paid_for() -> None:
    flow = DrivenFlow(CHAIN)
    flow.tell(ev.Tick())
    flow.read(range(2))
    flow.tell(ev.SourceEnded(total_rows=2))
    flow.done(flow.task(0))
    flow.tell(ev.StopRequested(reason="stopped"))
    flow.tell(ev.DispatchDrained())
    commit = flow.only(ev.Commit)
    assert (commit.partial, commit.ended, commit.final) == ([0], [], False)
    flow.committed(commit)
    assert flow.only(ev.PhaseEnded).status == "stopped"


def _after_a_second(flow: DrivenFlow) -> ev.Commit:
    flow.tell(ev.Tick(), after_s=1.0)
    return flow.only(ev.Commit)
