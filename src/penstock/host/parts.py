"""Parts of answers on their way out: sent at once, grouped by listener, before the answer that they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.protocol.messages import Answer, AnswerPart, AnswerParts, Request
from penstock.protocol.wire import encode_parts

__all__ = ["Streams"]

_FORGET_AT = 256  # ids that have ended are forgotten once there are so many


class Streams:
    """Records which requests have sent a first part, so that it is reported once."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}  # id -> attempt

    def sort(
        self, items: Iterable[Answer | AnswerPart], executing: Mapping[int, Request]
    ) -> tuple[list[Answer], list[AnswerParts]]:
        """The answers among what an engine has emitted, and its parts as messages. A part of no request that executes
        (it was aborted) is dropped."""
        answers: list[Answer] = []
        by_listener: dict[int, list[AnswerPart]] = {}
        for item in items:
            if isinstance(item, Answer):
                answers.append(item)
                continue
            request = executing.get(item.id)
            if request is not None and request.attempt == item.attempt and request.listener:
                by_listener.setdefault(request.listener, []).append(item)
        messages = [
            AnswerParts(listener, self._first(parts), encode_parts(parts)) for listener, parts in by_listener.items()
        ]
        if len(self._begun) > _FORGET_AT + len(executing):
            self._begun = {id: attempt for id, attempt in self._begun.items() if id in executing}
        return answers, messages

    def _first(self, parts: list[AnswerPart]) -> list[tuple[int, int]]:
        first: list[tuple[int, int]] = []
        for part in parts:
            if self._begun.get(part.id) != part.attempt:
                self._begun[part.id] = part.attempt
                first.append((part.id, part.attempt))
        return first
