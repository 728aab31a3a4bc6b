"""Parts of answers as a host sends them: grouped, cut where they are too large together, and what can't be sent."""

from __future__ import annotations

import re

import pytest

from penstock.host.parts import Streams
from penstock.protocol import messages
from penstock.protocol.messages import Answer, AnswerPart, AnswerParts, Request
from penstock.protocol.wire import coordinator_decoder, decode_parts


def executing(*ids: int, listener: int = 7) -> dict[int, Request]:
    return {number: Request("x", None, number, 1, listener=listener) for number in ids}


def received(frames: list[bytearray]) -> tuple[list[tuple[int, int]], list[AnswerPart]]:
    """What the coordinator hears: whose first parts, and all parts in their order."""
    got = coordinator_decoder().feed(b"".join(frames))
    assert all(isinstance(message, AnswerParts) for message in got)
    first = [pair for message in got for pair in message.first]  # type: ignore[union-attr]
    return first, [part for message in got for part in decode_parts(message.frame)]  # type: ignore[union-attr]


def test_parts_that_are_too_large_together_go_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_MESSAGE_BYTES", 5000)
    parts = [AnswerPart(number % 3, 1, 0, f"{number} " + "x" * 2000) for number in range(9)]
    streams = Streams()
    answers, frames = streams.sort(parts, executing(0, 1, 2))
    assert not answers and len(frames) > 1
    assert received(frames) == ([(0, 1), (1, 1), (2, 1)], parts)
    assert received(streams.sort(parts[:1], executing(0))[1])[0] == [], "a first part is reported once"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (AnswerPart(1, 1, 0, "x" * 6000), "a message of 60.. bytes; the limit is 5000"),
        (AnswerPart(1, 1, 0, "", [1 << 70]), "a part of the answer can't be sent"),
        (AnswerPart(1, 1, 0, "", None, "\ud800"), "a part of the answer can't be sent"),
    ],
    ids=["too large", "token", "reason"],
)
def test_a_part_that_can_not_be_sent_fails_its_request_alone(
    monkeypatch: pytest.MonkeyPatch, bad: AnswerPart, reason: str
) -> None:
    monkeypatch.setattr(messages, "MAX_MESSAGE_BYTES", 5000)
    good = [AnswerPart(number, 1, 0, f"part of {number}") for number in (0, 2)]
    late = AnswerPart(1, 1, 0, "after what is missing")
    answers, frames = Streams().sort([good[0], bad, late, good[1], Answer(1, 1)], executing(0, 1, 2))
    assert received(frames) == ([(0, 1), (2, 1)], good)
    assert [(answer.id, answer.attempt, answer.code) for answer in answers] == [(1, 1, "engine_error"), (1, 1, "")]
    assert answers[0].message.startswith("a part of the answer can't be sent: ")
    assert re.search(reason, answers[0].message)


def test_text_that_is_not_valid_unicode_is_escaped() -> None:
    _, frames = Streams().sort([AnswerPart(1, 1, 0, "a\ud800b")], executing(1))
    assert [part.text for part in received(frames)[1]] == ["a\\ud800b"]


def test_parts_of_no_request_that_executes_are_dropped() -> None:
    parts = [AnswerPart(1, 2, 0, "of another attempt"), AnswerPart(3, 1, 0, "aborted")]
    assert Streams().sort(parts, executing(1)) == ([], [])
    assert Streams().sort([AnswerPart(1, 1, 0, "nobody listens")], executing(1, listener=0)) == ([], [])


def test_what_has_ended_is_forgotten() -> None:
    streams = Streams()
    for number in range(10_000):
        streams.sort([AnswerPart(number, 1, 0, "x")], executing(number))
    assert len(streams._begun) < 300
