"""Which reply belongs to which request, and which connections are kept (core/service.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.service import (
    REMEMBERED,
    SAME_ID_LIMIT,
    Asked,
    Connection,
    Reply,
    Service,
    Verdict,
    mark,
    marks_in,
)

NEW = Connection(1, 1)
USED = Connection(2, 2)


def asked(request: int, number: int = 0) -> Asked:
    return Asked(f"{request:024x}", f"{number:016x}")


def verdict(service: Service, connection: Connection, request: int, reply: Reply) -> tuple[bool, bool, str, bool]:
    found = service.judge(connection, asked(request), reply)
    return found.taken, found.kept, found.why, found.at_once


@pytest.mark.parametrize("connection", [NEW, USED], ids=["new", "used"])
def test_a_reply_with_the_mark_of_its_request_is_taken_and_its_connection_kept(connection: Connection) -> None:
    service = Service()
    assert verdict(service, connection, 1, Reply(marks=(asked(1).mark,))) == (True, True, "", False)
    assert service.keeps


def test_the_mark_of_another_request_is_not_taken_and_ends_the_keeping_where_the_connection_was_kept() -> None:
    service = Service()
    other = Reply(marks=(asked(2).mark,))
    assert verdict(service, NEW, 1, other) == (False, False, "other", False)
    assert service.keeps
    assert verdict(service, USED, 1, other) == (False, False, "other", True)
    assert verdict(service, NEW, 1, Reply(marks=(asked(1).mark,)))[0]
    assert not service.keeps, "for good"


def test_own_and_other_mark_together_are_anothers() -> None:
    """A header that something between has put in, about the id that the service gave."""
    assert not Service().judge(NEW, asked(1), Reply(marks=(asked(1).mark, asked(2).mark))).taken


def test_another_try_of_the_same_request_is_taken_from_a_new_connection_only() -> None:
    service = Service()
    cached = Reply(marks=(asked(1, 7).mark,))
    assert verdict(service, NEW, 1, cached) == (True, False, "", False)
    assert verdict(service, USED, 1, cached) == (False, False, "unproven", True)


@pytest.mark.parametrize(("success", "keeps"), [(True, False), (False, True)])
def test_without_a_mark_a_used_connection_is_not_believed(success: bool, keeps: bool) -> None:
    service = Service()
    reply = Reply(id="fresh", success=success)
    assert verdict(service, USED, 1, reply) == (False, False, "unproven", True)
    assert service.keeps is keeps, "what refuses is not the answer to another request"
    assert verdict(service, NEW, 1, reply) == (True, False, "", False)


def test_connections_are_kept_only_where_replies_prove_themselves() -> None:
    service = Service()
    first, second = service.take(), service.take()
    assert first.number != second.number
    own = service.judge(first, asked(1), Reply(marks=(asked(1).mark,)))
    assert service.release(first, own)
    assert service.take(new=True) is not first
    assert service.take() is first and first.asked == 2
    assert not service.release(second, Verdict(taken=True))
    assert service.release(first, own)
    assert service.judge(second, asked(2), Reply(id="a")) == Verdict(taken=True)
    assert not service.keeps
    assert service.take() is not first
    assert not service.release(first, own)


def test_an_id_that_answered_another_request_is_not_taken() -> None:
    service = Service()
    for number in range(SAME_ID_LIMIT + 1):
        assert service.judge(NEW, asked(number), Reply(id=f"chatcmpl-{number}", content="yes")).taken
    for _ in range(3 * SAME_ID_LIMIT):
        assert verdict(service, NEW, 99, Reply(id="chatcmpl-1", content="yes")) == (False, False, "repeated", False)
    assert service.judge(NEW, asked(1), Reply(id="chatcmpl-1", content="yes")).taken, "a cache: the same was asked"
    assert service.judge(NEW, asked(50), Reply(content="yes")).taken, "no id, no judgement"


def test_one_id_for_all_replies_says_nothing() -> None:
    service = Service()
    assert service.judge(NEW, asked(0), Reply(id="chatcmpl", content="yes")).taken
    answers = [service.judge(NEW, asked(number), Reply(id="chatcmpl", content="yes")).taken for number in range(1, 20)]
    assert answers.index(True) == SAME_ID_LIMIT - 1 and all(answers[SAME_ID_LIMIT - 1 :])
    counted = Service()
    assert counted.judge(NEW, asked(0), Reply(id="1", content="yes")).taken
    assert counted.judge(NEW, asked(1), Reply(id="1", content="no")).taken, "counted again by another backend"
    assert counted.judge(NEW, asked(2), Reply(id="1", content="no")).taken


def test_what_is_remembered_is_bounded() -> None:
    service = Service()
    for number in range(REMEMBERED + 100):
        service.judge(NEW, asked(number), Reply(id=str(number), content="x"))
    assert len(service._seen) == REMEMBERED


def test_marks_are_found_whole_or_not_at_all() -> None:
    one, two = asked(1, 2).mark, asked(3, 4).mark
    assert marks_in([f"chatcmpl-{one}", "", f"x {two},{one}"]) == [one, two, one]
    assert marks_in([one[:-1], one.upper(), one.replace("0", "g", 1), "penstock-", "penstock-penstock-"]) == []
    assert marks_in(["penstock-" + one]) == [one]
    assert len(one) == len(mark("a" * 24, "b" * 16)) == 50


@given(st.text(alphabet="penstock-0123abcdef", max_size=200))
def test_any_text_has_marks_or_none(text: str) -> None:
    assert all(found in text for found in marks_in([text]))
