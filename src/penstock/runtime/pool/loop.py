"""The thread of a launched pool: the shipped dispatcher alone, without rows, steps or a ledger.

calls ──Begin──▶ inbox ──▶ Dispatch ──▶ replicas ──answers──▶ Dispatch ──Deliver──▶ calls
"""

from __future__ import annotations

import selectors
import threading
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from penstock.core import events as ev
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.events import Event, Instruction
from penstock.errors import PoolFailed
from penstock.executors.base import Executor, Launch
from penstock.protocol.messages import Answer, Request
from penstock.runtime.inbox import Inbox
from penstock.runtime.pool.calls import Begin, Call, Cancel, GenerationError, generation_of, submit_event
from penstock.runtime.replicas.record import Record
from penstock.runtime.replicas.replicas import Replicas
from penstock.runtime.watch.clock import RunClock

__all__ = ["Close", "PoolLoop"]

TICK_S = 0.2


class Close(Event):
    """End the replicas and the thread."""


class PoolLoop(threading.Thread):
    """`ready` is set once a replica can answer, or the pool is down: then `failure` says why."""

    def __init__(
        self, dispatch: Dispatch, executor: Executor, launches: Sequence[Sequence[Launch]], record: Record
    ) -> None:
        super().__init__(name="penstock-pool", daemon=True)
        self.inbox = Inbox()
        self.ready = threading.Event()
        self.failure: PoolFailed | None = None
        self.dispatch, self.record = dispatch, record
        self.calls: list[Call] = []  # in the order of their tasks
        self._clock = RunClock()
        self._next_task = 0
        self._next_tick = 0.0
        self._ended = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.inbox.fileno(), selectors.EVENT_READ, None)
        self.replicas = Replicas(
            clock=self._clock,
            executor=executor,
            launches=launches,
            record=record,
            selector=self._selector,
            requests_of=self._requests,
        )
        self._table: dict[type[Instruction], Any] = {
            **self.replicas.table,
            ev.Deliver: self._deliver,
            ev.FailRequests: self._fail_requests,
            ev.PoolDown: self._pool_down,
            ev.Recovered: self._recovered,
        }

    def run(self) -> None:
        events: list[Event] = [ev.OpenPools(pools=[0])]
        try:
            while not self._ended:
                self._turn(events)
                if not self._ended:
                    events = self._wait()
        except BaseException as error:  # whoever waits has to know
            self._down(PoolFailed(f"the pool's thread ended: {type(error).__name__}: {error}"))
        finally:
            self._down(self.failure or PoolFailed("the pool is closed"))
            self.replicas.close()
            self._selector.close()

    def _turn(self, events: list[Event]) -> None:
        while events:
            instructions = self.dispatch.handle(events, self._clock.now())
            events = []
            for instruction in instructions:
                action = self._table.get(type(instruction))
                events += action(instruction) if action is not None else ()

    def _wait(self) -> list[Event]:
        events = self.replicas.wait(max(0.0, self._next_tick - self._clock.now()), self.inbox, self._asked)
        if any(isinstance(event, ev.ReplicaReady) for event in events):
            self.ready.set()
        if self._clock.now() >= self._next_tick:
            self._next_tick = self._clock.now() + TICK_S
            events.append(ev.Tick())
        return events

    def _asked(self, item: Event) -> Iterable[Event]:
        if isinstance(item, Begin):
            return self._begin(item.call)
        if isinstance(item, Cancel):
            return self._cancel(item.call)
        self._ended = isinstance(item, Close)
        return ()

    # ------------------------------------------------------------ calls

    def _begin(self, call: Call) -> Iterable[Event]:
        if self.failure is not None:
            call.fail(self.failure)
            return ()
        call.number_from(self._next_task)
        self._next_task += len(call.requests)
        self.calls.append(call)
        return [submit_event(call)]

    def _cancel(self, call: Call) -> Iterable[Event]:
        if call not in self.calls:
            return ()
        left = [call.first_task + at for at, result in enumerate(call.results) if result is None]
        self._forget(call)
        return [ev.CancelRequests(tasks=left)]

    def _of(self, task: int) -> Call | None:
        at = bisect_right(self.calls, task, key=lambda call: call.first_task) - 1
        call = self.calls[at] if at >= 0 else None
        return call if call is not None and task - call.first_task < len(call.requests) else None

    def _forget(self, call: Call) -> None:
        self.calls.remove(call)

    def _requests(self, send: ev.Send) -> list[Request]:
        found: list[Request] = []
        for task, attempt in zip(send.tasks, send.attempts, strict=True):
            call = self._of(task)
            assert call is not None, f"task {task} was sent, and no call has it"
            request = call.requests[task - call.first_task]
            request.attempt = attempt
            found.append(request)
        return found

    # ------------------------------------------------------------ what the dispatcher says

    def _deliver(self, deliver: ev.Deliver) -> Iterable[Event]:
        items = self.replicas.batches[deliver.batch]
        self.record.delivered(deliver, items)
        for index in deliver.accepted:
            self._end_task(items[index].id, items[index], None)
        return ()

    def _fail_requests(self, failed: ev.FailRequests) -> Iterable[Event]:
        items = self.replicas.batches.get(failed.batch, ())
        for at, task in enumerate(failed.tasks):
            index = failed.indexes[at]
            message = failed.messages[at] if index < 0 else items[index].message
            self._end_task(task, None, (failed.codes[at], message))
        return ()

    def _end_task(self, task: int, answer: Answer | None, failed: tuple[str, str] | None) -> None:
        call = self._of(task)
        if call is None:
            return  # cancelled meanwhile
        index = task - call.first_task
        call.take(index, GenerationError(*failed, index) if failed is not None else generation_of(_given(answer)))
        if call.complete:
            self._forget(call)

    def _pool_down(self, down: ev.PoolDown) -> Iterable[Event]:
        self.record.pool_down(down)
        self._down(PoolFailed(f"no replica of the pool is left: {down.reason}"))
        return ()

    def _recovered(self, recovered: ev.Recovered) -> Iterable[Event]:
        self.record.recovered(recovered)
        return ()

    def _down(self, failure: PoolFailed) -> None:
        if self.failure is None:
            self.failure = failure
        for call in self.calls:
            call.fail(self.failure)
        self.calls.clear()
        self.ready.set()


def _given(answer: Answer | None) -> Answer:
    assert answer is not None
    return answer
