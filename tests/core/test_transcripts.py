"""Decisions as text: events and the instructions that follow, kept in tests/golden/core.

A change of decisions shows as a difference there; a refactoring shows none. With PENSTOCK_GOLDEN=update in the
environment the files are written anew: read the difference before it is committed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from core_kit import CHAIN, DIAMOND, Driven, DrivenDispatch, DrivenFlow

from penstock.core import events as ev
from penstock.core.counts import Counts
from penstock.core.events import CHILD_BASE
from penstock.core.shape import Progress, StepShape

GOLDEN = Path(__file__).parent.parent / "golden" / "core"

Scene = Callable[[], Driven]
SCENES: dict[str, Scene] = {}


def scene(play: Scene) -> Scene:
    SCENES[play.__name__] = play
    return play


@scene
def chain_to_the_end() -> Driven:
    """Four rows of which one is unreadable, one filtered, one dead."""
    flow = DrivenFlow(CHAIN, read_rows=4)
    flow.tell(ev.Tick())
    flow.read([0, 1, 3], unreadable=[2])
    flow.tell(ev.SourceEnded(total_rows=4))
    flow.done(0, 3, 9, growth=5)
    flow.tell(ev.TasksFiltered(tasks=[4]))
    flow.tell(ev.TasksDead(tasks=[10]), after_s=1.0)
    first = flow.only(ev.Commit)
    flow.done(1)
    flow.committed(first)
    flow.done(2)
    flow.committed(flow.only(ev.Commit))
    return flow


@scene
def stop_and_resume() -> Driven:
    flow = DrivenFlow(progress=Progress(3, (4, 5), Counts(out=5, ended_sources=5, steps={"generate": (5, 5, 0)})))
    flow.tell(ev.Tick())
    flow.read([3, 6, 7])
    flow.done(6)
    flow.tell(ev.StopRequested(reason="stopped"))
    flow.done(3)
    flow.tell(ev.SourceEnded(total_rows=8), ev.DispatchDrained())
    flow.committed(flow.only(ev.Commit))
    return flow


@scene
def children_of_an_expand() -> Driven:
    flow = DrivenFlow((StepShape("expand"), StepShape("write", (0,))), commit_every_s=0.0)
    flow.tell(ev.Tick())
    flow.read([0, 1])
    flow.tell(ev.TaskExpanded(task=0, sizes_bytes=[4, 6]))
    flow.done(flow.task(CHILD_BASE + 1, 1))
    flow.tell(ev.TasksFiltered(tasks=[flow.task(CHILD_BASE, 1)]))
    flow.committed(flow.only(ev.Commit), moved=Counts(out=-1, dead=1, dead_sources=1))
    return flow


@scene
def join_and_a_death_in_a_branch() -> Driven:
    flow = DrivenFlow(DIAMOND, commit_every_s=0.0)
    flow.tell(ev.Tick())
    flow.read([0, 1])
    flow.done(0, 4)
    flow.done(1, 2)
    flow.tell(ev.TasksDead(tasks=[5]))
    flow.done(3)
    return flow


@scene
def requests_to_replicas() -> Driven:
    """Loads end one after the other; look-ahead grows; a retry; the tail is called back."""
    dispatch = DrivenDispatch(2)
    dispatch.tell(ev.OpenPools(pools=[0]))
    dispatch.submit(*range(8))
    dispatch.tell(ev.ReplicaReady(replica=0, incarnation=1, slots=2, kv_tokens=0), after_s=1.0)
    dispatch.tell(dispatch.answers(0, 0, executing=1), after_s=0.1)
    dispatch.tell(ev.ReplicaReady(replica=1, incarnation=1, slots=2, kv_tokens=0), after_s=0.1)
    dispatch.tell(dispatch.answers(0, 1, codes=["retry"], executing=2, waiting=1), after_s=0.1)
    dispatch.tell(ev.Exhausted())
    dispatch.tell(dispatch.answers(1, *dispatch.out(1)), after_s=0.1)
    call = dispatch.only(ev.TakeBackFrom)
    dispatch.tell(dispatch.answers(call.replica, executing=2, waiting=0, returned=call.tasks), after_s=0.1)
    return dispatch


@scene
def a_poisonous_request() -> Driven:
    """A death with two requests in flight; each is tried apart; one kills alone, twice, and is given up."""
    dispatch = DrivenDispatch(1)
    dispatch.ready(0)
    dispatch.submit(0, 1)
    for _ in range(2):
        dispatch.lose(0, after_s=1.0)
        dispatch.bring_back(0)
    dispatch.tell(dispatch.answers(0, 0))
    dispatch.lose(0, after_s=1.0)
    dispatch.bring_back(0)
    dispatch.lose(0, after_s=1.0)
    return dispatch


@scene
def a_hang_and_the_circuit() -> Driven:
    dispatch = DrivenDispatch(1, progress_timeout_s=10.0, circuit_deaths=2)
    dispatch.ready(0)
    dispatch.submit(0)
    dispatch.tell(ev.HeartbeatArrived(replica=0, incarnation=1, executing=1, waiting=0, progress=1), after_s=5.0)
    dispatch.tell(ev.Tick(), after_s=10.0)
    dispatch.tell(dispatch.answers(0, 0), after_s=0.1)
    dispatch.lose(0, jitter=0.5)
    dispatch.bring_back(0)
    dispatch.tell(dispatch.answers(0, 0))
    dispatch.lose(0)
    return dispatch


@scene
def tokens_and_a_drain() -> Driven:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=4, kv_tokens=100)
    dispatch.submit(0, 1, 2, 3, tokens_in=10, out=30)
    dispatch.tell(dispatch.answers(0, 0, executing=1, tokens_out=15, sized=[(1, 20)]))
    dispatch.tell(ev.CancelRequests(tasks=[1]))
    dispatch.tell(ev.DrainRequested(grace_s=10.0))
    dispatch.tell(dispatch.answers(0, *dispatch.out(0)))
    return dispatch


@pytest.mark.parametrize("name", SCENES)
def test_decisions_are_as_written(name: str) -> None:
    play = SCENES[name]
    text = "\n".join(play().lines) + "\n"
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("PENSTOCK_GOLDEN") == "update":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert text == file.read_text(), "decisions have changed: see the module's docstring"


def test_every_transcript_has_its_scene() -> None:
    assert sorted(file.stem for file in GOLDEN.iterdir()) == sorted(SCENES)
