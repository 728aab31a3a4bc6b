"""The host's queue in front of its engine.

Every request that has come and was not answered is in exactly one of two places: `waiting`, where the engine never
saw it and the coordinator can have it back, or `executing`. The engine gets as many as it has slots (and tokens), so
what waits here is the look-ahead that keeps it from running dry while an answer travels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from penstock.engines.base import QueuedRequest
from penstock.host.budget import TokenBudget
from penstock.protocol.messages import Answer, Capacity, Requests

__all__ = ["RequestQueue"]


class RequestQueue:
    """unmatched_answers: answers so far to no request that executes: aborted meanwhile, or a fault of the engine."""

    def __init__(self) -> None:
        self.waiting: deque[QueuedRequest] = deque()
        self.executing: dict[int, QueuedRequest] = {}
        self.unmatched_answers = 0
        self._slots = 0
        self._budget = TokenBudget(0)

    def open(self, capacity: Capacity) -> None:
        """The engine is loaded: from now on `next_batch` gives."""
        self._slots = max(1, capacity.slots)
        self._budget = TokenBudget(capacity.kv_tokens)

    def add(self, message: Requests, now_s: float) -> None:
        samplings = message.samplings
        self.waiting.extend(
            [
                QueuedRequest(request, samplings[request.sampling] if request.sampling >= 0 else None, now_s)
                for request in message.items
            ]
        )

    def next_batch(self, ahead: int = 0) -> list[QueuedRequest]:
        """What the engine gets now: as many as it has room for, and `ahead` beyond that. They count as executing."""
        waiting, executing, budget = self.waiting, self.executing, self._budget
        room = self._slots + ahead - len(executing)
        batch: list[QueuedRequest] = []
        while room > 0 and waiting and budget.admits(waiting[0]):
            prompted = waiting.popleft()
            budget.take(prompted)
            executing[prompted.request.id] = prompted
            batch.append(prompted)
            room -= 1
        return batch

    def settle(self, answers: Iterable[Answer]) -> list[Answer]:
        """Those of `answers` that are wanted: of an attempt that is executing. Each ends here."""
        wanted: list[Answer] = []
        executing, budget = self.executing, self._budget
        for answer in answers:
            prompted = executing.get(answer.id)
            if prompted is None or prompted.request.attempt != answer.attempt:
                self.unmatched_answers += 1  # aborted meanwhile, and perhaps sent again
                continue
            del executing[answer.id]
            budget.release(prompted, answer)
            wanted.append(answer)
        return wanted

    def take_back(self, ids: Sequence[int]) -> list[int]:
        """Those of `ids` that the engine never saw; they are the coordinator's again."""
        asked = set(ids)
        returned = [prompted.request.id for prompted in self.waiting if prompted.request.id in asked]
        if returned:
            self.waiting = deque(prompted for prompted in self.waiting if prompted.request.id not in asked)
        return returned

    def abort(self, ids: Sequence[int]) -> list[int]:
        """Forget these; returns those that the engine has to abort."""
        self.take_back(ids)
        inside = self.inside(ids)
        self.withdraw(inside)
        return inside

    def inside(self, ids: Sequence[int]) -> list[int]:
        """Those of `ids` that the engine has."""
        return [number for number in ids if number in self.executing]

    def withdraw(self, ids: Sequence[int]) -> None:
        """These have left the engine without an answer."""
        for number in ids:
            self._budget.release(self.executing.pop(number))
