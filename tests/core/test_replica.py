"""Replica: its transition table, its credit, its look-ahead, its deadlines and restarts."""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

import pytest
from core_kit import DrivenDispatch, request
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import events as ev
from penstock.core.dispatch.replica import Replica
from penstock.core.dispatch.replica_states import ANSWERS, COMING, SERVES, TRANSITIONS, UP
from penstock.core.shape import DispatchLimits, ReplicaShape
from penstock.errors import InvariantError

STATES = (
    "off", "starting", "ready", "quarantined", "draining", "killed", "waiting", "failed",
    "falling_asleep", "asleep", "waking", "leaving",
)  # fmt: skip
EVENTS = (
    "start", "ready", "isolate", "rejoin", "drain", "load_failed", "lost", "kill", "give_up", "leave",
    "sleep", "asleep", "wake",
)  # fmt: skip
# What may happen, said once more: a change to the table has to be made here as well, on purpose.
EXPECTED = {
    ("off", "start"): "starting",
    ("starting", "ready"): "ready",
    ("starting", "load_failed"): "failed",
    ("starting", "lost"): "waiting",
    ("starting", "kill"): "killed",
    ("ready", "lost"): "waiting",
    ("ready", "kill"): "killed",
    ("ready", "isolate"): "quarantined",
    ("quarantined", "rejoin"): "ready",
    ("ready", "drain"): "draining",
    ("quarantined", "drain"): "draining",
    ("draining", "lost"): "off",
    ("draining", "kill"): "killed",
    ("draining", "leave"): "leaving",
    ("failed", "leave"): "off",
    ("failed", "start"): "starting",
    ("quarantined", "lost"): "waiting",
    ("quarantined", "kill"): "killed",
    ("quarantined", "sleep"): "falling_asleep",
    ("quarantined", "leave"): "leaving",
    ("killed", "lost"): "waiting",
    ("killed", "load_failed"): "failed",
    ("killed", "ready"): "killed",
    ("waiting", "start"): "starting",
    ("waiting", "give_up"): "failed",
    ("failed", "lost"): "failed",
    ("starting", "leave"): "leaving",
    ("ready", "leave"): "leaving",
    ("killed", "leave"): "leaving",
    ("waiting", "leave"): "off",
    ("ready", "sleep"): "falling_asleep",
    ("falling_asleep", "asleep"): "asleep",
    ("falling_asleep", "lost"): "off",
    ("falling_asleep", "leave"): "leaving",
    ("asleep", "wake"): "waking",
    ("asleep", "lost"): "off",
    ("asleep", "leave"): "leaving",
    ("waking", "ready"): "ready",
    ("waking", "lost"): "waiting",
    ("waking", "kill"): "killed",
    ("waking", "leave"): "leaving",
    ("leaving", "lost"): "off",
    ("leaving", "ready"): "leaving",
    ("leaving", "load_failed"): "leaving",
    ("leaving", "asleep"): "leaving",
}


def made(**limits: int | float) -> Replica:
    return Replica(0, ReplicaShape("replica-0", 0), DispatchLimits(**limits))  # type: ignore[arg-type]


def ready(slots: int = 4, kv_tokens: int = 0, **limits: int | float) -> Replica:
    replica = made(**limits)
    replica.move("start")
    replica.move("ready")
    replica.became_ready(slots, kv_tokens, 0.0)
    return replica


def give(replica: Replica, *tasks: int, cost: int = 0) -> None:
    for task in tasks:
        replica.in_flight[task] = request(task)
        replica.in_flight[task].cost = cost
        replica.tokens_in_flight += cost


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_transition(state: str, event: str) -> None:
    replica = made()
    replica.state = state
    following = EXPECTED.get((state, event))
    assert replica.can(event) is (following is not None)
    if following is None:
        with pytest.raises(InvariantError, match=f"replica-0 is {state}: {event} is impossible"):
            replica.move(event)
    else:
        replica.move(event)
    assert replica.state == (following or state)


def test_the_table_names_no_other_state_or_event() -> None:
    assert set(TRANSITIONS) == set(STATES)
    assert {event for row in TRANSITIONS.values() for event in row} == set(EVENTS)
    assert SERVES | COMING == UP < set(STATES)
    assert {"draining"} == ANSWERS - SERVES


def test_an_impossible_transition_tells_the_story_and_orders_nothing() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0)
    replica = dispatch.machine.replicas[0]
    replica.state = "waiting"
    with pytest.raises(InvariantError, match=r"(?s)replica-0 is waiting: kill is impossible.*ReplicaReady\("):
        dispatch.machine.kill(replica, "no reason", because="hung")
    assert not [said for said in dispatch.machine._out if isinstance(said, ev.KillReplica)]


@pytest.mark.parametrize("state", [state for state in STATES if state != "ready"])
def test_no_credit_unless_ready(state: str) -> None:
    replica = ready()
    assert replica.spare(100) == 4 + replica.lookahead
    replica.state = state
    assert replica.spare(100) == 0


def test_tokens_limit_what_is_sent_but_never_the_first() -> None:
    replica = ready(slots=4, kv_tokens=100)
    assert replica.fits(10_000)
    give(replica, 1, cost=90)
    assert replica.fits(int(100 * 1.25) - 90)
    assert not replica.fits(200)
    assert ready(slots=4).fits(10_000)


def test_count_tells_excess_idle_and_recalled() -> None:
    replica = ready(slots=2)
    assert replica.count() == (0, 2, 0)
    give(replica, 1, 2, 3, 4)
    assert replica.count() == (2, 0, 0)
    replica.recalled = 1
    assert replica.count() == (1, 0, 1)
    replica.take_all()
    replica.move("isolate")
    assert replica.count() == (0, 0, 0)


@pytest.mark.parametrize("slots", [1, 4, 64])
@pytest.mark.parametrize("service_s", [0.001, 0.01, 1.0])
@pytest.mark.parametrize("turnaround_s", [0.001, 0.01])
def test_lookahead_is_what_the_turnaround_needs_and_no_more(slots: int, service_s: float, turnaround_s: float) -> None:
    """A queue in front of `slots`, refilled one turnaround after each answer to as many as the credit allows."""
    replica = ready(slots=slots)
    waiting, running, now, idle, last = slots + replica.lookahead, [], 0.0, 0.0, 0.0
    arriving: list[tuple[float, int]] = []
    most = number = 0
    warm_s = 20 * turnaround_s + 10 * service_s
    while now < 2 * warm_s:
        number += 1
        while waiting and len(running) < slots:
            waiting -= 1
            heappush(running, now + service_s * (1 + (number * 7 + len(running)) % 5 / 10))
        following = min(running[0] if running else inf, arriving[0][0] if arriving else inf)
        if now > warm_s:
            idle += (slots - len(running)) * (following - now) / slots
            last, most = last or now, max(most, replica.lookahead)
        now = following
        if arriving and arriving[0][0] == now:
            waiting += arriving.pop(0)[1]
            continue
        heappop(running)
        replica.measure(1, turnaround_s, now)
        out = waiting + len(running) + sum(count for _, count in arriving)
        spare = slots + replica.lookahead - out
        if spare > 0:
            arriving.append((now + turnaround_s, spare))
    in_one_turnaround = slots * turnaround_s / service_s
    assert most <= max(slots + 1, 2 * in_one_turnaround + 2), "never longer than the turnaround needs"
    assert idle < 0.01 * (now - last), "and never too short"


def test_lookahead_is_never_below_one() -> None:
    replica = ready(slots=1)
    for step in range(1, 20):
        replica.measure(0, 0.0, step * 1.0)
    assert replica.lookahead == 1


def test_progress_deadline() -> None:
    replica = ready(progress_timeout_s=10.0, progress_factor=5.0)
    assert replica.progress_deadline() is None
    give(replica, 1)
    replica.liveness.progress_at = 3.0
    assert replica.progress_deadline() == 13.0
    replica.saw(1, 1, 4.0)
    assert replica.progress_deadline() == 14.0
    replica.saw(1, 1, 9.0)
    assert replica.progress_deadline() == 14.0
    replica.saw(2, 1, 10.0)  # a gap of 6 s: allow five times as long
    assert replica.progress_deadline() == 10.0 + 30.0


def test_nothing_executing_is_no_progress_while_requests_are_out() -> None:
    replica = ready(progress_timeout_s=10.0)
    give(replica, 1)
    replica.saw(0, 0, 1.0)
    replica.saw(0, 0, 8.0)
    assert replica.progress_deadline() == 11.0


def test_the_models_own_timeout_counts() -> None:
    replica = Replica(0, ReplicaShape("replica-0", 0, progress_timeout_s=1.5), DispatchLimits())
    replica.state = "ready"
    give(replica, 1)
    assert replica.progress_deadline() == 1.5


def test_restarts_back_off_and_the_circuit_opens() -> None:
    replica = made(restart_backoff_s=1.0, restart_backoff_max_s=5.0, circuit_deaths=4, circuit_window_s=1000.0)
    delays = []
    for death in range(4):
        replica.restarts.died(100.0 * death, 0.0, counts=True)
        delays.append(replica.restarts.start_at - 100.0 * death)
        assert replica.restarts.circuit_open() is (death == 3)
    assert delays == [1.0, 2.0, 4.0, 5.0]


def test_old_deaths_are_forgotten_and_those_of_suspects_do_not_count() -> None:
    replica = made(restart_backoff_s=1.0, circuit_deaths=2, circuit_window_s=10.0)
    replica.restarts.died(0.0, 0.0, counts=True)
    replica.restarts.died(5.0, 0.9, counts=False)
    assert replica.restarts.start_at == 5.0
    replica.restarts.died(20.0, 0.0, counts=True)
    assert not replica.restarts.circuit_open()
    assert replica.restarts.start_at == 21.0


def test_the_death_that_was_a_requests_fault_is_forgiven_and_no_other() -> None:
    replica = made(circuit_deaths=5, circuit_window_s=1000.0)
    replica.restarts.died(1.0, 0.0, counts=True)
    replica.restarts.died(2.0, 0.0, counts=True, device_failed=True)
    replica.restarts.forgive(1.0)
    replica.restarts.forgive(1.0)
    replica.restarts.died(3.0, 0.0, counts=True, device_failed=True)
    assert replica.restarts.circuit_open(), "its device has failed twice"
    replica.restarts.forgive(2.0)
    assert not replica.restarts.circuit_open()


@given(st.floats(0.0, 1.0, exclude_max=True), st.integers(1, 12))
def test_jitter_lengthens_by_a_quarter_at_most(jitter: float, deaths: int) -> None:
    replica = made(restart_backoff_s=0.5, restart_backoff_max_s=60.0, circuit_window_s=1e9)
    for _ in range(deaths):
        replica.restarts.died(0.0, jitter, counts=True)
    plain = min(0.5 * 2 ** (deaths - 1), 60.0)
    assert plain <= replica.restarts.start_at <= plain * 1.25


def test_lookahead_covers_the_slots_that_come_free_at_once() -> None:
    replica = ready(slots=8)
    replica.measure(8, 0.001, 0.1)
    assert replica.lookahead == 9
    replica.measure(100, 0.001, 0.2)  # more than there are slots: two waves in one message
    assert replica.lookahead == 9
    now = 0.2
    for _ in range(60):
        now += 0.6
        replica.measure(1, 0.001, now)
    assert replica.lookahead == 2


def test_a_host_is_sent_no_more_text_than_it_may_hold() -> None:
    """Without a KV cache that bounds them, 1,024 requests of long prompts would wait in one host."""
    replica = ready(slots=100, most_tokens_out=1000)
    give(replica, 0, cost=600)
    assert replica.fits(10**9)
    give(replica, 1, cost=600)
    assert replica.spare(100) > 0 and not replica.fits(1)
    replica.take_all()
    assert replica.fits(10**9)
