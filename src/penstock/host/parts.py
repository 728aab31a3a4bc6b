"""Parts of answers on their way out: sent at once, grouped by listener, before the answer that they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.protocol.messages import Answer, AnswerPart, AnswerParts, Request
from penstock.protocol.values import UnsendableValue, escaped
from penstock.protocol.wire import MessageTooLarge, encode, encode_parts

__all__ = ["Streams"]

_FORGET_AT = 256  # ids that have ended are forgotten once there are so many


class Streams:
    """Records which requests have sent a first part, so that it is reported once."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}  # id -> attempt

    def sort(
        self, items: Iterable[Answer | AnswerPart], executing: Mapping[int, Request]
    ) -> tuple[list[Answer], list[bytearray]]:
        """The answers among what an engine has emitted, and its parts as messages, encoded. A part of no request that
        executes (it was aborted) is dropped. A part that can't be sent fails its request alone: its failure stands
        before the answers, and ends the request in place of the answer that it would have."""
        answers: list[Answer] = []
        by_listener: dict[int, list[AnswerPart]] = {}
        for item in items:
            if isinstance(item, Answer):
                answers.append(item)
                continue
            request = executing.get(item.id)
            if request is not None and request.attempt == item.attempt and request.listener:
                by_listener.setdefault(request.listener, []).append(item)
        failed: dict[int, Answer] = {}
        frames = [frame for listener, parts in by_listener.items() for frame in self._frames(listener, parts, failed)]
        if len(self._begun) > _FORGET_AT + len(executing):
            self._begun = {id: attempt for id, attempt in self._begun.items() if id in executing}
        return [*failed.values(), *answers], frames

    def _frames(self, listener: int, parts: list[AnswerPart], failed: dict[int, Answer]) -> list[bytearray]:
        """`parts` as one message, or as several where they are too large for one."""
        parts = [part for part in parts if part.id not in failed]  # a stream ends where a piece of it is missing
        if not parts:
            return []
        first = {part.id: part.attempt for part in parts if self._begun.get(part.id) != part.attempt}
        try:
            frame = encode(AnswerParts(listener, list(first.items()), encode_parts(parts)))
        except (UnsendableValue, MessageTooLarge) as error:
            if len(parts) == 1:
                reason = escaped(f"a part of the answer can't be sent: {error}")
                failed[parts[0].id] = Answer(parts[0].id, parts[0].attempt, "engine_error", reason)
                return []
            middle = len(parts) // 2
            before = self._frames(listener, parts[:middle], failed)
            return before + self._frames(listener, parts[middle:], failed)
        self._begun.update(first)
        return [frame]
