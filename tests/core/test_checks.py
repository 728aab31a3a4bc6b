"""The checks of invariants see what they are there to see."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from core_kit import DIAMOND, DrivenDispatch, DrivenFlow, request

from penstock.core import events as ev
from penstock.core.dispatch.check import check_dispatch
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.dispatch.lanes import SUSPECT, Request
from penstock.core.flow.check import check_flow
from penstock.core.flow.flow import Flow
from penstock.errors import InvariantError


def running_flow() -> Flow:
    """Rows 0 to 3 in branches, row 4 ended, row 5 committed."""
    flow = DrivenFlow(DIAMOND, commit_every_s=0.0)
    flow.tell(ev.Tick())
    flow.read(range(6))
    flow.tell(ev.TasksDead(tasks=[flow.task(5)]))
    flow.tell(ev.TasksDead(tasks=[flow.task(4)]))
    flow.done(*(flow.task(row) for row in range(4)))
    return flow.machine


def running_dispatch() -> Dispatch:
    """Requests in flight on both replicas, some called back, some waiting."""
    dispatch = DrivenDispatch(2)
    dispatch.ready(0, 1, slots=1, kv_tokens=1000)
    dispatch.submit(*range(7))
    return dispatch.machine


def set_field(name: str, change: Callable[[int], int]) -> Callable[[object], None]:
    def apply(holder: object) -> None:
        setattr(holder, name, change(getattr(holder, name)))

    return apply


def not_ready(dispatch: Dispatch) -> None:
    dispatch.replicas[0].state = "waiting"
    dispatch.pools[0].recount(dispatch.replicas[0])


def suspect(dispatch: Dispatch) -> Request:
    made = dispatch.requests[50] = request(50)
    made.place = SUSPECT
    return made


FLOW_FAULTS: dict[str, tuple[Callable[[Flow], None], str]] = {
    "bytes": (lambda flow: set_field("open_bytes", lambda held: held + 1)(flow), "bytes are counted"),
    "negative": (lambda flow: flow.open.update({1: -1}), "holds -1 bytes"),
    "task lost": (lambda flow: flow.open.__delitem__(1), "open tasks of"),
    "ended and open": (lambda flow: flow.commits.ended.append(0), "ended and are open"),
    "ended twice": (lambda flow: flow.commits.ended.append(4), "twice"),
    "row lost": (lambda flow: set_field("read", lambda rows: rows + 1)(flow.tally), "missing"),
    "ended miscounted": (
        lambda flow: set_field("ended", lambda rows: rows + 1)(flow.tally),
        "counted as ended",
    ),
    "family lost": (lambda flow: flow.families.by_root.__delitem__(0), "no family"),
    "child lost": (lambda flow: flow.families.root_of.update({99: 0}), "have a family"),
    "waits for nothing": (lambda flow: flow.families.awaited.update({-6: (1, 0)}), "has no task open"),
    "beyond reach": (lambda flow: setattr(flow.admission, "next_position", 1000), "beyond the reach"),
    "not given out": (lambda flow: flow.begun.of_step[1][0].append(9), "not given out"),
    "watermark": (lambda flow: setattr(flow.commits.positions, "watermark", 1), "ended and are open"),
}

DISPATCH_FAULTS: dict[str, tuple[Callable[[Dispatch], None], str]] = {
    "two places": (lambda it: it.pools[0].lanes.push(it.replicas[0].in_flight[0]), "two places"),
    "count": (lambda it: set_field("count", lambda count: count + 1)(it.pools[0].lanes), "counts 4 waiting requests"),
    "tokens": (lambda it: set_field("tokens_in_flight", lambda held: held + 1)(it.replicas[0]), "tokens"),
    "recalled": (lambda it: set_field("recalled", lambda count: count + 1)(it.replicas[0]), "called back"),
    "started": (lambda it: set_field("started", lambda count: count + 1)(it.replicas[0]), "started"),
    "not ready": (lambda it: not_ready(it), "is waiting with 2 requests in flight"),
    "other number": (lambda it: it.replicas[0].in_flight.update({77: it.replicas[0].in_flight.pop(0)}), "as 77"),
    "attempts": (lambda it: setattr(it.replicas[0].in_flight[0], "failures", 5), "limit of attempts"),
    "restarts": (lambda it: it.replicas[0].restarts.deaths.extend([(0.0, 1)] * 5), "limit of restarts"),
    "waits recalled": (lambda it: setattr(it.pools[0].lanes.requests()[0], "recalled", True), "is called back"),
    "idle": (lambda it: it.replicas[0].in_flight.clear(), "is charged|spare credit|has credit"),
    "quarantined": (lambda it: setattr(it.replicas[0], "state", "quarantined"), "tries suspects"),
    "suspects": (lambda it: it.pools[0].quarantine.add([suspect(it)]), "nobody tries"),
    "suspects' count": (lambda it: it.pools[0].quarantine.groups.append([suspect(it)]), "counts 0 suspects"),
    "index": (lambda it: it.requests.pop(0), "not where the index says"),
    "place": (lambda it: setattr(it.pools[0].lanes.requests()[0], "place", 1), "not where the index says"),
    "lost": (lambda it: it.requests.update({50: request(50)}), r"requests \[50\] are nowhere"),
}


def test_the_running_machines_are_sound() -> None:
    check_flow(running_flow())
    check_dispatch(running_dispatch())


@pytest.mark.parametrize("name", FLOW_FAULTS)
def test_flow_fault_is_seen(name: str) -> None:
    flow = running_flow()
    fault, message = FLOW_FAULTS[name]
    fault(flow)
    with pytest.raises(InvariantError, match=message):
        check_flow(flow)


@pytest.mark.parametrize("name", DISPATCH_FAULTS)
def test_dispatch_fault_is_seen(name: str) -> None:
    dispatch = running_dispatch()
    fault, message = DISPATCH_FAULTS[name]
    fault(dispatch)
    with pytest.raises(InvariantError, match=message):
        check_dispatch(dispatch)


def test_the_error_tells_the_story_of_the_row() -> None:
    flow = running_flow()
    flow.open[1] = -1
    with pytest.raises(InvariantError) as caught:
        check_flow(flow)
    story = str(caught.value)
    assert "The story (flow):" in story
    assert "StartTasks(step=1" in story
    assert "SourceEnded" not in story
