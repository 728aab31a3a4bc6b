"""Paid results of unfinished rows: those of earlier invocations, and those waiting for a commit.

A task is known by (position, path, step): numbers of children differ from one invocation to the next.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.ledger.base import PaidResult, PaidResults
from penstock.protocol.messages import Answer
from penstock.protocol.wire import decode_answer, encode_answer
from penstock.runtime.rows.store import RowStore

__all__ = ["PaidAnswers"]


class PaidAnswers:
    """known: what invocations before have committed; a source row leaves when it has ended."""

    def __init__(self, store: RowStore, known: PaidResults, steps: int) -> None:
        self.known = known
        self._store = store
        self._steps = steps
        self._fresh: dict[int, list[tuple[int, tuple[int, ...], Answer]]] = {}  # position -> (step, path, answer)

    def find(self, task: int) -> Answer | None:
        """The answer to `task` of an invocation before. Raises WireError where it can't be read."""
        row, step = divmod(task, self._steps)
        position, path = self._store.place(row)
        data = self.known.get(position, {}).get((path, step))
        return None if data is None else decode_answer(data)

    def keep(self, task: int, answer: Answer) -> None:
        """Until the next commit. The answer's own numbers may be of a request that was shared; `task` counts."""
        row, step = divmod(task, self._steps)
        position, path = self._store.place(row)
        fresh = self._fresh.get(position)
        if fresh is None:
            self._fresh[position] = [(step, path, answer)]
        else:
            fresh.append((step, path, answer))

    def take(self, ended: Sequence[int], partial: Sequence[int]) -> list[PaidResult]:
        """What is new of the source rows `partial`, for the ledger. Rows that have `ended` are forgotten."""
        fresh, known = self._fresh, self.known
        for position in ended:
            fresh.pop(position, None)
            if known:
                known.pop(position, None)
        return [
            PaidResult(position, path, step, encode_answer(answer))
            for position in partial
            for step, path, answer in fresh.pop(position, ())
        ]
