"""One driver for runs and pools: several pools, failures that reach everyone, invariants that are checked when idle."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from driver_support import ThreadExecutor, call_to, echo, plan_of, pools_of, started, texts

from penstock.core import events as ev
from penstock.core.check import Check, core_checks
from penstock.core.core import Core
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.flow.flow import Flow
from penstock.core.shape import FlowLimits, FlowShape, Progress, StepShape
from penstock.errors import InvariantError, PoolFailed
from penstock.planning.launches import dispatch_shape, launches_of
from penstock.protocol.messages import Answer, AnswerParts, EngineConfig, Output, Request, Setup, WireRequest
from penstock.runtime.driver import Driver, Table
from penstock.runtime.inbox import Inbox
from penstock.runtime.pool.calls import Call, Generation, GenerationError
from penstock.runtime.replicas.links import Link
from penstock.runtime.replicas.record import Record
from penstock.runtime.watch.clock import RunClock
from penstock.runtime.watch.integrity import EVERY_S, LONGEST_S, SHARE, Integrity


def until(true: Callable[[], Any]) -> None:
    end_s = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.002)


def never(replica: str, request: WireRequest) -> Answer | None:
    return None


# ------------------------------------------------------------ any number of pools


def test_each_pool_answers_its_own_calls(tmp_path: Path) -> None:
    with started(pools_of({"small": 1, "large": 2}, tmp_path)) as pools:
        calls = [call_to(name, *(f"{name} {n}" for n in range(20))) for name in ("small", "large", "small")]
        for call in calls:
            pools.begin(call)
        for call in calls:
            found = texts(call)
            assert [text.partition(": ")[2] for text in found] == [request.payload for request in call.requests]
            assert {text.partition("-")[0] for text in found} == {call.pool}
        assert all(served.ready.is_set() for served in pools.effects.pools.values())


def test_a_pool_that_fails_leaves_the_other_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its callers, under way and later, get the reason; the other pool answers on."""
    monkeypatch.setattr("penstock.core.dispatch.restarts.LOADS_BEFORE_GIVING_UP", 1)
    executor = ThreadExecutor(breaks=["bad-0"])
    with started(pools_of({"bad": 1, "good": 1}, tmp_path, executor)) as pools:
        waiting = call_to("bad", "a")
        pools.begin(waiting)
        executor.may_break.set()
        with pytest.raises(PoolFailed, match=r"all replicas of the pool have failed: .*it broke"):
            waiting.wait()
        with pytest.raises(PoolFailed, match=r"all replicas of the pool have failed: .*it broke"):
            pools.begin(call_to("bad", "b"))
        fine = call_to("good", "c")
        pools.begin(fine)
        assert texts(fine) == ["good-0: c"]


def test_a_cancelled_call_holds_nothing(tmp_path: Path) -> None:
    with started(pools_of({"one": 1}, tmp_path, ThreadExecutor(never))) as pools:
        call = call_to("one", *"abcdefgh")
        pools.begin(call)
        until(lambda: pools.dispatch.replicas[0].in_flight)
        pools.cancel(call)
        until(lambda: not pools.dispatch.replicas[0].in_flight and not pools.dispatch.pools[0].waiting())


# ------------------------------------------------------------ an exception ends the pools, and everyone is told


class Broken(Exception):
    pass


@pytest.mark.parametrize("where", ["handle", "effects", "wait"])
def test_an_exception_reaches_every_waiting_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Wherever it comes from: callers under way, in the inbox, and later ones."""
    pools = pools_of({"one": 1, "two": 1}, tmp_path, ThreadExecutor(never))

    def fails(*anything: object) -> Any:
        raise Broken("planted")

    with started(pools):
        under_way = [call_to(name, "a", "b") for name in ("one", "two")]
        for call in under_way:
            pools.begin(call)
        until(lambda: all(replica.in_flight for replica in pools.dispatch.replicas))
        told: list[BaseException] = []

        def wait(call: Call) -> None:
            try:
                call.wait()
            except BaseException as error:
                told.append(error)

        threads = [threading.Thread(target=wait, args=(call,)) for call in under_way]
        for thread in threads:
            thread.start()
        target = {"handle": pools.dispatch, "effects": pools.effects, "wait": pools.driver.replicas}[where]
        monkeypatch.setattr(target, {"handle": "handle", "effects": "happened", "wait": "look"}[where], fails)
        late = call_to("one", "c")
        try:
            pools.begin(late)
        except PoolFailed as error:
            told.append(error)
        else:
            wait(late)
        for thread in threads:
            thread.join(20)
        with pytest.raises(PoolFailed) as later:
            pools.begin(call_to("two", "d"))
        told.append(later.value)
    assert len(told) == 4
    assert {str(error) for error in told} == {"the pool's thread ended: Broken: planted"}
    assert all(isinstance(_root(error), Broken) for error in told), "each names its cause"
    assert len({id(error) for error in told}) == 4, "each thread raises an exception of its own"


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def test_closing_fails_what_is_under_way(tmp_path: Path) -> None:
    with started(pools_of({"one": 1}, tmp_path, ThreadExecutor(never))) as pools:
        call = call_to("one", "a")
        pools.begin(call)
    with pytest.raises(PoolFailed, match="the pool is closed"):
        call.wait()


# ------------------------------------------------------------ invariants


class NoRows:
    """Effects of a run whose source says nothing more: its driver is idle. See `runtime.driver.Effects`."""

    def __init__(self) -> None:
        self.ended = ""
        self.table: Table = {ev.PhaseEnded: self._end}

    def _end(self, ended: ev.PhaseEnded) -> tuple[()]:
        self.ended = ended.status
        return ()

    def requests(self, send: ev.Send) -> list[Request]:
        raise AssertionError("no row, no request")

    def deliver(self, deliver: ev.Deliver, items: object) -> tuple[()]:
        return ()

    def fail(self, failed: ev.FailRequests, items: object) -> tuple[()]:
        return ()

    def pool_down(self, down: ev.PoolDown) -> tuple[()]:
        return ()

    def happened(self, events: list[ev.Event]) -> list[ev.Event]:
        return events


def idle_run(folder: Path) -> tuple[Core, Driver]:
    plan = plan_of({"one": 1})
    flow = Flow(FlowShape((StepShape("one"),), FlowLimits()), Progress(), 0.0)
    core, clock = Core(flow, Dispatch(dispatch_shape(plan))), RunClock()
    record = Record(plan, folder)
    driver = Driver(
        core,
        NoRows(),
        clock=clock,
        inbox=Inbox(),
        executor=ThreadExecutor(),
        launches=[launches_of(replica, folder) for replica in plan.replicas],
        record=record,
        checks=core_checks(core),
    )
    return core, driver


def break_flow(core: Core) -> None:
    core.flow.open_bytes += 17


def break_dispatch(core: Core) -> None:
    core.dispatch.replicas[0].tokens_in_flight += 3


@pytest.mark.parametrize(
    ("plant", "message"),
    [(break_flow, "17 bytes are counted as open, 0 are held"), (break_dispatch, "charged 3 tokens, 0 are in flight")],
)
def test_a_broken_invariant_ends_a_run_with_its_story(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Core], None], message: str
) -> None:
    monkeypatch.setattr("penstock.runtime.watch.integrity.EVERY_S", 0.005)
    core, driver = idle_run(tmp_path)
    turns = 0

    def watch(now: float) -> None:
        nonlocal turns
        turns += 1
        if turns == 3:
            plant(core)
        assert turns < 100, "it was never found"

    with pytest.raises(InvariantError, match=message) as caught:
        driver.run([ev.Tick()], watch)
    assert turns >= 3, "what was not broken was not called broken"
    assert "The story (" in str(caught.value) and "Tick(" in str(caught.value)
    driver.close()


def test_a_broken_invariant_is_an_incident_of_pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noted, its story logged, and calls are answered on; while it stays broken it is looked at less and less often."""
    monkeypatch.setattr("penstock.runtime.watch.integrity.EVERY_S", 0.005)
    with started(pools_of({"one": 1}, tmp_path)) as pools:
        first = call_to("one", "a")
        pools.begin(first)
        assert texts(first) == ["one-0: a"]
        assert pools.record.incidents == 0
        pools.dispatch.replicas[0].recalled += 5  # planted
        until(lambda: pools.record.incidents >= 2)
        second = call_to("one", "b")
        pools.begin(second)
        assert texts(second) == ["one-0: b"]
        time.sleep(0.3)
        assert pools.record.incidents <= 8, "each time twice as long after the last"
    log = pools.record.log.read_text()
    found = "pool one counts 0 excess, 4 idle, 0 called back; its replicas have 0, 4, 5"
    assert f"an invariant is broken, which is a bug in Penstock: {found}" in log
    assert "The story (dispatch):" in log and "ReplicaReady(" in log


def test_a_busy_loop_is_not_held_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.runtime.watch.integrity.EVERY_S", 0.0)
    _, driver = idle_run(tmp_path)
    checked: list[int] = []
    driver._integrity._checks = [Check("counted", lambda: 1, lambda: checked.append(1))]
    turns = 0

    def watch(now: float) -> None:
        nonlocal turns
        turns += 1
        if turns < 50:
            driver._inbox.put(ev.Tick())  # something is there whenever it looks
        elif turns == 50:
            assert not checked
        elif checked:
            driver._effects.ended = "stopped"

    driver.run([ev.Tick()], watch)
    assert checked, "and once it is idle, it is checked"
    driver.close()


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def integrity_of(clock: Clock, *costs: tuple[Callable[[], int], float]) -> tuple[Integrity, list[int]]:
    """Checks of a size that cost so much for each item; the calls of them, in order."""
    calls: list[int] = []

    def check(number: int) -> None:
        size, s_per_item = costs[number]
        calls.append(number)
        clock.now_s += size() * s_per_item

    checks = [Check(str(number), size, partial(check, number)) for number, (size, _) in enumerate(costs)]
    return Integrity(checks, clock), calls


def test_checks_take_no_more_than_their_share_of_the_time() -> None:
    clock = Clock()
    integrity, calls = integrity_of(clock, (lambda: 8_000, 4e-6), (lambda: 100, 1e-6))
    spent_s = 0.0
    while clock.now_s < 1_000:
        clock.now_s += 0.01
        if integrity.due():
            before_s = clock.now_s
            integrity.check()
            spent_s += clock.now_s - before_s
    assert 0 < spent_s <= SHARE * 1_000
    assert calls[:4] == [0, 1, 0, 1] and len(calls) <= 1_000 / EVERY_S


def test_a_check_that_would_take_long_waits_until_less_is_open() -> None:
    clock, size = Clock(), 1_000
    integrity, calls = integrity_of(clock, (lambda: size, 3e-6))
    for _ in range(3):
        clock.now_s += 10
        integrity.check()
    assert len(calls) == 3
    size = int(LONGEST_S / 3e-6) + 1
    for _ in range(3):
        clock.now_s += 10
        assert integrity.due()
        integrity.check()
    assert len(calls) == 3
    size -= 1
    clock.now_s += 10
    integrity.check()
    assert len(calls) == 4


def test_an_exception_of_a_thread_ends_the_loop(tmp_path: Path) -> None:
    _, driver = idle_run(tmp_path)
    driver._inbox.put(Broken("planted"))
    with pytest.raises(Broken, match="planted"):
        driver.run([ev.Tick()])
    driver.close()


def test_hosts_of_threads_answer_as_hosts_do(tmp_path: Path) -> None:
    """What the tests above rest on."""
    assert echo("x-0", WireRequest(7, 1, "hello")).outputs[0].text == "x-0: hello"


def test_parts_of_a_replica_that_was_ended_reach_nobody(tmp_path: Path) -> None:
    """Its requests without a first part run again, and a listener would hear two beginnings."""
    pools = pools_of({"one": 1}, tmp_path)
    replicas = pools.driver.replicas
    heard: list[bytes] = []
    replicas.listeners[7] = heard.append
    ours, theirs = socket.socketpair()
    link = Link(0, 1, ours, Setup("one-0", EngineConfig("mock", "mock:x")))
    parts = AnswerParts(7, [(3, 1)], b"frame")
    assert [type(event) for event in replicas._parts(link, parts)] == [ev.FirstParts]
    replicas.table[ev.KillReplica](ev.KillReplica(replica=0, incarnation=1, reason="no progress", dump_stacks=False))
    assert not replicas._parts(link, parts)
    assert heard == [b"frame"]
    link.close()
    theirs.close()
    pools.driver.close()
    pools.record.close()


def test_an_answer_with_another_number_of_outputs_is_an_error_of_its_prompt(tmp_path: Path) -> None:
    counts = {"none": 0, "three": 3, "one": 1}

    def answer(replica: str, request: WireRequest) -> Answer:
        outputs = [Output("text", "stop", 1)] * counts[str(request.payload)]
        return Answer(request.id, request.attempt, outputs=outputs)

    with started(pools_of({"one": 1}, tmp_path, ThreadExecutor(answer))) as pools:
        call = call_to("one", *counts)
        pools.begin(call)
        none, three, one = call.wait()
    assert isinstance(none, GenerationError) and isinstance(three, GenerationError) and isinstance(one, Generation)
    assert (none.code, none.index, three.index) == ("engine_error", 0, 1)
    assert "the engine returned 0 outputs; expected 1" in str(none)


def test_a_code_beyond_the_published_list_is_an_error_of_the_engine(tmp_path: Path) -> None:
    def answer(replica: str, request: WireRequest) -> Answer:
        return Answer(request.id, request.attempt, "of its own", "what the engine says")

    with started(pools_of({"one": 1}, tmp_path, ThreadExecutor(answer))) as pools:
        call = call_to("one", "a")
        pools.begin(call)
        (failed,) = call.wait()
    assert isinstance(failed, GenerationError) and failed.code == "engine_error"
    assert "what the engine says" in str(failed)
