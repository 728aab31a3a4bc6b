"""Bugs planted in the dispatcher, one at a time (see planting.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from planting import caught, planted

from penstock.core import events as ev
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.dispatch.failover import Failover
from penstock.core.dispatch.pool import Pool
from penstock.core.dispatch.replica import Replica

PLANTED, plant = planted()


def handle(monkeypatch: pytest.MonkeyPatch, kind: type[ev.Event], handler: Callable[[Dispatch, Any], None]) -> None:
    """Dispatchers take events of this kind with `handler`."""
    init = Dispatch.__init__

    def with_handler(self: Dispatch, shape: Any) -> None:
        init(self, shape)
        self._handlers[kind] = lambda event: handler(self, event)

    monkeypatch.setattr(Dispatch, "__init__", with_handler)


@plant
def task_requeued_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in flight on a dead replica waits twice."""
    requeue = Failover.requeue

    def twice(self: Failover, pool: Pool, replica: Replica, reason: str) -> None:
        requests = list(replica.in_flight.values())
        requeue(self, pool, replica, reason)
        for request in requests[:1]:
            if request.crashes == 1:
                pool.lanes.push(request)

    monkeypatch.setattr(Failover, "requeue", twice)


@plant
def streamed_request_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of its answer was sent, and it is run again in silence."""
    monkeypatch.setattr(Dispatch, "may_run_again", lambda self, request: True)


@plant
def streamed_request_forgets_its_first_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dispatcher does not take down what was sent."""
    handle(monkeypatch, ev.FirstParts, lambda self, event: None)


@plant
def row_dropped_on_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the requests of a dead replica is forgotten."""
    take_all = Replica.take_all
    monkeypatch.setattr(Replica, "take_all", lambda self: take_all(self)[1:])


@plant
def token_credit_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken back keeps its token credit."""
    release = Dispatch._release

    def leak(self: Dispatch, replica: Replica, task: int) -> Any:
        request = release(self, replica, task)
        if request is not None:
            replica.tokens_in_flight += request.cost
        return request

    monkeypatch.setattr(Dispatch, "_release", leak)


@plant
def answer_of_another_attempt_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies are matched on the task alone."""
    match = Dispatch._match

    def careless(self: Dispatch, replica: Replica, pool: Pool, event: ev.AnswersArrived) -> Any:
        for index, task in enumerate(event.tasks):
            if task in replica.in_flight:
                event.attempts[index] = replica.in_flight[task].attempt
        return match(self, replica, pool, event)

    monkeypatch.setattr(Dispatch, "_match", careless)


@plant
def answer_of_another_incarnation_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restarted replica is answered for by the one before."""
    arrived = Dispatch._on_answers_arrived

    def careless(self: Dispatch, event: ev.AnswersArrived) -> None:
        event.incarnation = self.replicas[event.replica].incarnation
        arrived(self, event)

    handle(monkeypatch, ev.AnswersArrived, careless)


@plant
def others_run_beside_the_suspects(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lane takes what comes, too."""
    monkeypatch.setattr(Replica, "spare", lambda self, priority: _spare(self) if self.serves else 0)


def _spare(replica: Replica) -> int:
    return replica.slots + replica.lookahead - len(replica.in_flight)


@plant
def take_back_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a host gives back is forgotten."""
    arrived = Dispatch._on_answers_arrived

    def lose(self: Dispatch, event: ev.AnswersArrived) -> None:
        for task in event.returned or ():
            self._release(self.replicas[event.replica], task)
        arrived(self, event)

    handle(monkeypatch, ev.AnswersArrived, lose)


@plant
def retried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retryable answers are not counted."""
    fail = Dispatch._fail_attempts

    def forgiving(self: Dispatch, replica: Replica, pool: Pool, failed: Any, event: ev.AnswersArrived) -> None:
        for _, request in failed:
            request.failures = -1
        fail(self, replica, pool, failed, event)

    monkeypatch.setattr(Dispatch, "_fail_attempts", forgiving)


@plant
def given_up_at_the_first_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retryable answer ends the row."""
    fail = Dispatch._fail_attempts

    def impatient(self: Dispatch, replica: Replica, pool: Pool, failed: Any, event: ev.AnswersArrived) -> None:
        for _, request in failed:
            request.failures = self.limits.max_attempts
        fail(self, replica, pool, failed, event)

    monkeypatch.setattr(Dispatch, "_fail_attempts", impatient)


@plant
def sends_while_draining(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is to stop goes on sending."""

    def drain(self: Dispatch, event: ev.DrainRequested) -> None:
        self.emit(ev.Drained())

    handle(monkeypatch, ev.DrainRequested, drain)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    caught(name)
