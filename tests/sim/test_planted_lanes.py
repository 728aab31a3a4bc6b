"""Bugs planted in lanes, credit, take-backs and deadlines, one at a time (see planting.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from planting import caught, planted

from penstock.core.dispatch.deadlines import Deadlines
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.dispatch.lanes import Lane, Request, StrictOrder
from penstock.core.dispatch.pool import Pool
from penstock.core.dispatch.replica import Replica

PLANTED, plant = planted()


@plant
def cancelled_task_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled request stays in flight, so that the answer of the engine that aborted it is taken."""
    withdraw = Dispatch._withdraw

    def keep(self: Dispatch, tasks: Sequence[int]) -> Any:
        out = [(self.replicas[self.requests[t].place], self.requests[t]) for t in tasks if t in self.requests]
        found = withdraw(self, tasks)
        for replica, request in out:
            if request.place >= 0 and request.step == 1:
                self.requests[request.task] = request
                replica.charge(request)
                self.pools[request.pool].recount(replica)
        return found

    monkeypatch.setattr(Dispatch, "_withdraw", keep)


@plant
def cancelled_task_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was cancelled while it waited is passed over only where the lane is tidied up."""
    monkeypatch.setattr(Lane, "_drop_ended", lambda self: None)


@plant
def counted_prompt_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt's true length is noted, and the replica's credit stays as it was guessed."""
    resize = Dispatch._resize

    def note(self: Dispatch, replica: Replica, task: int, tokens: int) -> None:
        charged = replica.tokens_in_flight
        resize(self, replica, task, tokens)
        replica.tokens_in_flight = charged

    monkeypatch.setattr(Dispatch, "_resize", note)


@plant
def expired_is_answered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is past its deadline ends, and what is in flight of it stays so."""
    withdraw = Dispatch._withdraw

    def keep(self: Dispatch, tasks: Sequence[int]) -> Any:
        waits = [task for task in tasks if task in self.requests and self.requests[task].place < 0]
        withdraw(self, waits)

    monkeypatch.setattr(Dispatch, "_withdraw", keep)


@plant
def deadlines_only_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline puts a request before others, and passes."""

    def nothing(self: Deadlines, requests: Any, now: float) -> list[Request]:
        return []

    monkeypatch.setattr(Deadlines, "due", nothing)


@plant
def deadlines_count_from_the_start_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that a request may take is taken for a time of day: it expires before its time."""
    add = Deadlines.add

    def early(self: Deadlines, request: Request) -> None:
        request.deadline -= 0.15
        add(self, request)

    monkeypatch.setattr(Deadlines, "add", early)


@plant
def credit_of_one_class_counted_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a higher class holds of a replica is given back to the class that was sent there first."""
    refund = Replica.refund

    def confuse(self: Replica, request: Request) -> None:
        refund(self, request)
        first = next(iter(self.held))
        self.held[request.priority] += 1
        self.held[first] -= 1

    monkeypatch.setattr(Replica, "refund", confuse)


@plant
def offers_of_other_classes_are_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of a replica's credit is told to the class first seen only."""
    offer = Pool.offer

    def one(self: Pool, replica: Replica) -> None:
        offers = self._offers
        self._offers = dict([next(iter(offers.items()))]) if offers else {}
        offer(self, replica)
        self._offers = {**offers, **self._offers}

    monkeypatch.setattr(Pool, "offer", one)


@plant
def lower_class_passes_a_blocked_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is behind a request that waits for tokens is served before it."""
    monkeypatch.setattr(StrictOrder, "may_pass", lambda self, lane, blocked: True)


@plant
def take_back_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-ahead stays in one host while another replica is idle."""
    monkeypatch.setattr(Pool, "to_take_back", lambda self, *, everything=False: {})


@plant
def request_put_back_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for which no replica has the tokens is dropped."""
    monkeypatch.setattr(Lane, "put_back", lambda self, request: None)


@plant
def offer_forgotten_after_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica gets no more once its first requests are answered: idle while work waits."""
    offer = Pool.offer
    monkeypatch.setattr(
        Pool, "offer", lambda self, replica: None if replica.liveness.progress > 3 else offer(self, replica)
    )


@plant
def taken_back_only_while_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A higher class waits until the look-ahead of a lower one is through."""
    take_back = Pool.to_take_back

    def idle_only(self: Pool, *, everything: bool = False) -> dict[int, list[int]]:
        return {} if self.lanes.count and not everything else take_back(self, everything=everything)

    monkeypatch.setattr(Pool, "to_take_back", idle_only)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    caught(name)
