"""Bugs planted in the rule of replies and connections, one at a time (see planting.py)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from planting import caught, planted

from penstock.core.service import Asked, Connection, Reply, Service, Verdict

PLANTED, plant = planted()
TAKEN = Verdict(taken=True, kept=True)


@plant
def connections_are_kept_and_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As clients of HTTP do: a reply is that to the last request. Only an id that came before is another's."""

    def judge(self: Service, connection: Connection, asked: Asked, reply: Reply) -> Verdict:
        self.keeps = True
        verdict = self._by_id(asked, reply)
        return TAKEN if verdict.taken else verdict

    monkeypatch.setattr(Service, "judge", judge)


@plant
def connections_are_kept_where_replies_have_new_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that did not come before is no proof: the service may have been asked twice."""
    judge = Service.judge

    def by_ids(self: Service, connection: Connection, asked: Asked, reply: Reply) -> Verdict:
        if reply.id and not reply.marks:
            self.keeps = True
            verdict = self._by_id(asked, reply)
            return TAKEN if verdict.taken else verdict
        return judge(self, connection, asked, reply)

    monkeypatch.setattr(Service, "judge", by_ids)


@plant
def an_unproven_reply_is_taken_from_a_used_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What something between says to nobody is believed by the next request."""
    judge = Service.judge

    def unproven(self: Service, connection: Connection, asked: Asked, reply: Reply) -> Verdict:
        return judge(self, connection if reply.marks else replace(connection, asked=1), asked, reply)

    monkeypatch.setattr(Service, "judge", unproven)


@plant
def the_mark_of_another_request_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark is looked for, and not whose it is."""
    judge = Service.judge

    def any_mark(self: Service, connection: Connection, asked: Asked, reply: Reply) -> Verdict:
        return judge(self, connection, asked, replace(reply, marks=(asked.mark,)) if reply.marks else reply)

    monkeypatch.setattr(Service, "judge", any_mark)


@plant
def the_mark_of_another_request_is_taken_from_a_new_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new connection is believed, whatever the reply says of itself: so are those that were swapped."""
    judge = Service.judge

    def new_is_believed(self: Service, connection: Connection, asked: Asked, reply: Reply) -> Verdict:
        return judge(self, connection, asked, reply if connection.asked > 1 else replace(reply, marks=()))

    monkeypatch.setattr(Service, "judge", new_is_believed)


@plant
def an_id_that_came_before_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier replies, on another connection, are not told by their ids."""
    monkeypatch.setattr(Service, "_by_id", lambda self, asked, reply: Verdict(taken=True))


@plant
def ids_are_given_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first id that repeats ends the judgement by ids."""
    monkeypatch.setattr("penstock.core.service.SAME_ID_LIMIT", 0)
    by_id = Service._by_id

    def giving_up(self: Service, asked: Asked, reply: Reply) -> Verdict:
        self._ids = 0
        return by_id(self, asked, reply)

    monkeypatch.setattr(Service, "_by_id", giving_up)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    caught(name)
