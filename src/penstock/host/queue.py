"""The host's queue in front of its engine.

Every request that has come and was not answered is in exactly one of two places: `waiting`, where the engine never
saw it and the coordinator can have it back, or `executing`. The engine gets as many as it has slots (and tokens), so
what waits here is the look-ahead that keeps it from running dry while an answer travels.

What waits is in order: by priority, then by rank, then as it came. The coordinator sends in the order of its own
queues, so that most messages go to the end; a request of a better class goes before those that came before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from operator import attrgetter

from penstock.host.acceptance import Acceptance
from penstock.host.budget import TokenBudget
from penstock.protocol.messages import Answer, Capacity, Request, Requests

__all__ = ["RequestQueue"]

_PLACE = attrgetter("priority", "rank")
_PAYLOAD, _LISTENER = attrgetter("payload"), attrgetter("listener")


class RequestQueue:
    """unmatched_answers: answers so far to no request that executes: aborted meanwhile, or a fault of the engine."""

    def __init__(self) -> None:
        self.waiting: deque[Request] = deque()
        self.executing: dict[int, Request] = {}
        self.unmatched_answers = 0
        self._slots = 0
        self._budget = TokenBudget(0)
        self._acceptance: Acceptance | None = None

    def refuse_by(self, acceptance: Acceptance) -> None:
        """From now on `add` refuses what the engine can't honour."""
        self._acceptance = acceptance

    def open(self, capacity: Capacity) -> None:
        """The engine is loaded: from now on `next_batch` gives."""
        self._slots = max(1, capacity.slots)
        self._budget = TokenBudget(capacity.kv_tokens)

    def add(self, message: Requests, now_s: float) -> list[Answer]:
        """Take new requests; the answers to those that the engine can't honour."""
        options = message.options
        new = [
            Request(
                item.payload,
                options[item.options] if item.options >= 0 else None,
                item.id,
                item.attempt,
                item.seed,
                item.step,
                item.priority,
                item.rank,
                item.listener,
                now_s,
            )
            for item in message.items
        ]
        refused = self._refused(message, new)
        if refused:
            gone = {answer.id for answer in refused}
            new = [request for request in new if request.id not in gone]
        self._insert(new)
        return refused

    def _refused(self, message: Requests, new: list[Request]) -> list[Answer]:
        acceptance = self._acceptance
        if acceptance is None:
            return []
        by_options = [acceptance.refusal_of_options(options) for options in message.options]
        plain = acceptance.types.issuperset(map(type, map(_PAYLOAD, new))) and not any(map(_LISTENER, new))
        if plain and not any(by_options):
            return []  # nearly always: a look at each request would cost more than all else that is done with it here
        reasons = [
            acceptance.refusal(request) or (by_options[item.options] if item.options >= 0 else "")
            for item, request in zip(message.items, new, strict=True)
        ]
        return [
            Answer(request.id, request.attempt, "refused", reason)
            for request, reason in zip(new, reasons, strict=True)
            if reason
        ]

    def _insert(self, new: list[Request]) -> None:
        if not new:
            return
        new.sort(key=_PLACE)
        if self.waiting and _PLACE(self.waiting[-1]) > _PLACE(new[0]):
            # Sorting is stable and finds the two runs, so that this is a merge.
            self.waiting = deque(sorted([*self.waiting, *new], key=_PLACE))
        else:
            self.waiting.extend(new)

    def counted(self, number: int, tokens: int) -> None:
        """The engine has tokenised a prompt."""
        self._budget.counted(number, tokens)

    def next_batch(self, ahead: int = 0) -> list[Request]:
        """What the engine gets now: as many as it has room for, and `ahead` beyond that. They count as executing."""
        waiting, executing, budget = self.waiting, self.executing, self._budget
        room = self._slots + ahead - len(executing)
        batch: list[Request] = []
        while room > 0 and waiting and budget.admits(waiting[0]):
            request = waiting.popleft()
            budget.take(request)
            executing[request.id] = request
            batch.append(request)
            room -= 1
        return batch

    def settle(self, answers: Iterable[Answer]) -> list[Answer]:
        """Those of `answers` that are wanted: of an attempt that is executing. Each ends here."""
        wanted: list[Answer] = []
        executing, budget = self.executing, self._budget
        for answer in answers:
            request = executing.get(answer.id)
            if request is None or request.attempt != answer.attempt:
                self.unmatched_answers += 1  # aborted meanwhile, and perhaps sent again
                continue
            del executing[answer.id]
            budget.release(request, answer)
            wanted.append(answer)
        return wanted

    def take_back(self, ids: Sequence[int]) -> list[int]:
        """Those of `ids` that the engine never saw; they are the coordinator's again."""
        asked = set(ids)
        returned = [request.id for request in self.waiting if request.id in asked]
        if returned:
            self.waiting = deque(request for request in self.waiting if request.id not in asked)
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
