from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine_info import EngineInfo
from penstock.host.acceptance import Acceptance
from penstock.host.budget import TokenBudget
from penstock.host.queue import RequestQueue
from penstock.protocol.messages import Answer, Capacity, Output, Request, Requests, WireRequest, requests_message
from penstock.protocol.options import Classification, Embedding, Options, Sampling, Scoring, Structured
from penstock.protocol.payloads import (
    ImagePart,
    Message,
    Messages,
    Pair,
    Payload,
    RawBody,
    TextPart,
    TokenIds,
    chat,
    guessed_tokens,
)


def requests(*ids: int, attempt: int = 1, text: str = "x") -> Requests:
    return Requests([WireRequest(number, attempt, text, 0) for number in ids], [Sampling(max_tokens=4)])


def opened(slots: int, kv_tokens: int = 0) -> RequestQueue:
    intake = RequestQueue()
    intake.open(Capacity(slots, kv_tokens))
    return intake


def ids(batch: list[Request]) -> list[int]:
    return [request.id for request in batch]


def test_requests_wait_until_the_engine_is_ready() -> None:
    intake = RequestQueue()
    intake.add(requests(1, 2), 5.0)
    assert intake.next_batch() == []
    intake.open(Capacity(1))
    (request,) = intake.next_batch()
    assert (request.id, request.arrived_s) == (1, 5.0)
    assert request.sampling == Sampling(max_tokens=4)


def test_the_engine_gets_as_many_as_it_has_slots() -> None:
    intake = opened(2)
    intake.add(requests(1, 2, 3, 4), 0.0)
    assert ids(intake.next_batch()) == [1, 2]
    assert intake.next_batch() == []
    intake.settle([Answer(2, 1)])
    assert ids(intake.next_batch()) == [3]
    assert ids(intake.next_batch(ahead=1)) == [4]


def test_what_the_engine_saw_is_not_given_back() -> None:
    intake = opened(1)
    intake.add(requests(1, 2, 3), 0.0)
    intake.next_batch()
    assert intake.take_back([1, 3, 9]) == [3]
    assert ids(list(intake.waiting)) == [2]


def test_an_answer_to_another_attempt_is_not_taken() -> None:
    intake = opened(1)
    intake.add(requests(1), 0.0)
    intake.next_batch()
    assert intake.abort([1, 7]) == [1]
    intake.add(requests(1, attempt=2), 0.0)
    intake.next_batch()
    assert intake.settle([Answer(1, 1)]) == []
    assert intake.settle([Answer(1, 2), Answer(1, 2)]) == [Answer(1, 2)]
    assert intake.unmatched_answers == 2


def test_tokens_bound_what_is_inside_but_never_stop_it() -> None:
    intake = opened(10, kv_tokens=100)
    intake.add(requests(1, 2, 3, text="x" * 150), 0.0)  # forecast: 50 tokens of prompt, 4 of output, and one
    assert ids(intake.next_batch()) == [1]
    intake.settle([Answer(1, 1)])
    assert ids(intake.next_batch()) == [2]
    lone = opened(10, kv_tokens=1)
    lone.add(requests(5), 0.0)
    assert ids(lone.next_batch()) == [5]


def test_the_budget_learns_from_answers() -> None:
    budget = TokenBudget(1000)
    long = Sampling(max_tokens=4096)

    def inside(step: int) -> int:
        admitted = 0
        while budget.admits(Request("x" * 30, long, 1000 + admitted, step=step)):
            budget.take(Request("x" * 30, long, 1000 + admitted, step=step))
            admitted += 1
        for number in range(admitted):
            budget.release(Request("", id=1000 + number))
        return admitted

    before = inside(step=1)
    for number in range(100):
        request = Request("x" * 30, long, number, step=1)
        budget.take(request)
        budget.release(request, Answer(number, 1, "", "", [Output("", "stop", 10)], None, 10))
    assert inside(step=1) > 3 * before
    assert inside(step=2) == before


@given(st.data())
def test_what_waits_goes_by_class_then_rank_then_as_it_came(data: st.DataObject) -> None:
    queue = opened(2)
    waiting: dict[int, tuple[int, int, int]] = {}  # class, rank, and the order of arrival
    came = 0
    places = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=6)
    for message, taken in data.draw(st.lists(st.tuples(places, st.booleans()), max_size=8)):
        items = []
        for priority, rank in message:
            waiting[came] = (priority, rank, came)
            items.append(WireRequest(came, 1, "x", priority=priority, rank=rank))
            came += 1
        queue.add(Requests(items), 0.0)
        if taken and waiting:
            (number,) = queue.take_back([data.draw(st.sampled_from(sorted(waiting)))])
            del waiting[number]
        began = ids(queue.next_batch())
        assert began == sorted(waiting, key=lambda number: waiting[number])[: len(began)]
        for number in began:
            del waiting[number]
        queue.settle([Answer(number, 1) for number in list(queue.executing)])
    assert sorted(ids(list(queue.waiting))) == sorted(waiting)


@pytest.mark.parametrize(
    ("payload", "options", "listener", "words"),
    [
        ("a prompt", Sampling(), 0, ""),
        ("a prompt", None, 0, ""),
        (TokenIds([1]), Sampling(), 0, ""),
        (chat([{"role": "user", "content": "a"}]), Sampling(), 0, ""),
        (Messages([Message("user", [TextPart("a"), ImagePart(data=b"x")])]), Sampling(), 0, "not images"),
        (Messages([Message("user", [TextPart("a"), TextPart("b")])]), Sampling(), 0, ""),
        (Pair("a", ["b"]), Scoring(), 0, "not pair"),
        (RawBody(b"{}", "/v1/completions"), None, 0, "not body"),
        ({"a": 1}, None, 0, "not row"),
        ("a text", Embedding(), 0, "can't do embedding"),
        ("a text", Classification(), 0, "can't do classification"),
        ("a prompt", Sampling(structured=Structured("regex", "a+")), 0, "can't do structured"),
        ("a prompt", Sampling(labels=("a", "b")), 0, "can't do labels"),
        ("a prompt", Sampling(), 3, "can't stream"),
    ],
)
def test_what_an_engine_can_not_honour_is_refused_by_its_record(
    payload: Payload, options: Options | None, listener: int, words: str
) -> None:
    queue = opened(4)
    queue.refuse_by(Acceptance(EngineInfo(name="plain")))
    requests = [Request("fine", id=1), Request(payload, options, 2, 7, listener=listener), Request("fine", id=3)]
    refused = queue.add(requests_message(requests), 0.0)
    if not words:
        assert refused == [] and len(queue.waiting) == 3
        return
    (answer,) = refused
    assert (answer.id, answer.attempt, answer.code) == (2, 7, "refused")
    assert words in answer.message and answer.message.startswith("the plain engine")
    assert ids(list(queue.waiting)) == [1, 3]


@given(st.data())
def test_each_request_is_in_one_place_and_leaves_once(data: st.DataObject) -> None:
    intake = opened(data.draw(st.integers(1, 4)), data.draw(st.sampled_from([0, 50])))
    sent = 0
    left: list[int] = []
    for action in data.draw(st.lists(st.sampled_from(["add", "feed", "answer", "take", "abort"]), max_size=40)):
        known = list(range(sent + 2))
        if action == "add":
            count = data.draw(st.integers(1, 4))
            intake.add(requests(*range(sent, sent + count)), 0.0)
            sent += count
        elif action == "feed":
            intake.next_batch()
        elif action == "answer":
            some = data.draw(st.lists(st.sampled_from(known)))
            left += [answer.id for answer in intake.settle([Answer(number, 1) for number in some])]
        elif action == "take":
            left += intake.take_back(data.draw(st.lists(st.sampled_from(known))))
        else:
            some = data.draw(st.lists(st.sampled_from(known), unique=True))
            waiting = [number for number in ids(list(intake.waiting)) if number in some]
            left += intake.abort(some) + waiting
        inside = ids(list(intake.waiting)) + list(intake.executing)
        assert sorted(inside + left) == list(range(sent))


def test_a_prompt_is_held_as_the_engine_has_counted_it_and_the_next_is_forecast_by_that() -> None:
    """Chinese text of a model that needs one and a half tokens for each character."""
    budget = TokenBudget(10_000)
    text, tokens = "引水管道" * 50, 300
    for number in range(100):
        budget.take(Request(text, Sampling(max_tokens=1, ignore_eos=True), number))
        budget.counted(number, tokens)
        assert budget._in_use == tokens + 1, "as counted, not as guessed"
        budget.release(Request(text, None, number))
        assert budget._in_use == 0
    budget.take(Request(text, Sampling(max_tokens=1, ignore_eos=True), 100))
    assert tokens * 0.95 < budget._in_use < tokens * 1.1


def test_sizes_of_requests_that_have_left_change_nothing() -> None:
    budget = TokenBudget(1_000)
    budget.counted(7, 50)
    assert budget._in_use == 0


def test_guesses_count_bytes_so_that_no_script_is_a_fraction_of_its_tokens() -> None:
    assert guessed_tokens("a" * 400) == 101
    assert guessed_tokens("水" * 400) == 301
    assert guessed_tokens(chat([{"role": "user", "content": "水" * 400}])) == 301
    assert guessed_tokens(TokenIds([1, 2, 3])) == 4
    assert guessed_tokens({"a": 1}) == 0
    assert guessed_tokens("\ud800") >= 1
