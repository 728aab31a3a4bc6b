"""The effects of launched pools: calls become requests, answers become their results. No rows, no steps, no ledger.

calls ──Begin──▶ inbox ──▶ Dispatch ──▶ replicas ──answers──▶ Dispatch ──Deliver──▶ calls
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from penstock.core import events as ev
from penstock.core.events import Event
from penstock.errors import PoolFailed
from penstock.protocol.messages import Answer, Request
from penstock.runtime.driver import Table
from penstock.runtime.pool.calls import (
    Begin,
    Call,
    Cancel,
    CloseLoop,
    GenerationError,
    Result,
    result_of,
    submit_event,
)

__all__ = ["PoolEffects", "Served"]


class Served:
    """One pool. ready: a replica can answer, or the pool has failed: then `failure` says why."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.ready = threading.Event()
        self.failure: PoolFailed | None = None

    def fail(self, failure: PoolFailed) -> None:
        """The first reason counts."""
        if self.failure is None:
            self.failure = failure
        self.ready.set()


class PoolEffects:
    """See `runtime.driver.Effects`. pools: by name; pool_of: of each replica, the index of its pool."""

    def __init__(self, names: Sequence[str], pool_of: Sequence[int]) -> None:
        self.ended = ""
        self.table: Table = {}
        self.pools: Mapping[str, Served] = {name: Served(index) for index, name in enumerate(names)}
        self._by_index = list(self.pools.values())
        self._pool_of = pool_of
        self._calls: list[Call] = []  # in the order of their tasks, over all pools
        self._next_task = 0

    # ------------------------------------------------------------ what happens

    def happened(self, events: list[Event]) -> list[Event]:
        return [each for event in events for each in self._translated(event)]

    def _translated(self, event: Event) -> Iterable[Event]:
        if isinstance(event, Begin):
            return self._begin(event.call)
        if isinstance(event, Cancel):
            return self._cancel(event.call)
        if isinstance(event, CloseLoop):
            self.ended = "closed"
            return ()
        if isinstance(event, ev.ReplicaReady):
            self._by_index[self._pool_of[event.replica]].ready.set()
        return (event,)

    def _begin(self, call: Call) -> Iterable[Event]:
        served = self.pools[call.pool]
        if served.failure is not None:
            call.fail(served.failure)
            return ()
        call.number_from(self._next_task)
        self._next_task += len(call.requests)
        self._calls.append(call)
        return (submit_event(call, served.index),)

    def _cancel(self, call: Call) -> Iterable[Event]:
        if call not in self._calls:
            return ()
        left = [call.first_task + at for at, result in enumerate(call.results) if result is None]
        self._calls.remove(call)
        return (ev.CancelRequests(tasks=left),)

    # ------------------------------------------------------------ requests

    def requests(self, send: ev.Send) -> list[Request]:
        found: list[Request] = []
        for task, attempt in zip(send.tasks, send.attempts, strict=True):
            call = self._call_of(task)
            assert call is not None, f"task {task} was sent, and no call has it"
            request = call.requests[task - call.first_task]
            request.attempt = attempt
            found.append(request)
        return found

    def deliver(self, deliver: ev.Deliver, items: Sequence[Answer]) -> Iterable[Event]:
        for index in deliver.accepted:
            answer = items[index]
            call = self._call_of(answer.id)
            if call is not None:  # else it was cancelled meanwhile
                at = answer.id - call.first_task
                self._take(call, answer.id, result_of(answer, call.requests[at], at))
        return ()

    def fail(self, failed: ev.FailRequests, items: Sequence[Answer]) -> Iterable[Event]:
        for at, task in enumerate(failed.tasks):
            call = self._call_of(task)
            if call is not None:
                index = failed.indexes[at]
                message = failed.messages[at] if index < 0 else items[index].message
                self._take(call, task, GenerationError(failed.codes[at], message, task - call.first_task))
        return ()

    def pool_down(self, down: ev.PoolDown) -> Iterable[Event]:
        served = self._by_index[down.pool]
        served.fail(PoolFailed(f"all replicas of the pool have failed: {down.reason}"))
        assert served.failure is not None
        for call in [call for call in self._calls if self.pools[call.pool] is served]:
            self._calls.remove(call)
            call.fail(served.failure)
        return ()

    def _take(self, call: Call, task: int, result: Result) -> None:
        call.take(task - call.first_task, result)
        if call.complete:
            self._calls.remove(call)

    def _call_of(self, task: int) -> Call | None:
        at = bisect_right(self._calls, task, key=lambda call: call.first_task) - 1
        call = self._calls[at] if at >= 0 else None
        return call if call is not None and task - call.first_task < len(call.requests) else None
