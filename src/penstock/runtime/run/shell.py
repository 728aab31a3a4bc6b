"""The shell: performs the core's instructions and turns what happens into events. It decides nothing.

Instructions are dispatched by their type through one table. What takes time (reading, committing, replicas) is begun
here and comes back through `wait`.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from penstock.core import events as ev
from penstock.core.events import Event, Instruction
from penstock.data.base import Chunk
from penstock.executors.base import Executor, Launch
from penstock.faults import fault
from penstock.ledger.base import CommitBatch
from penstock.runtime.inbox import Inbox
from penstock.runtime.replicas.record import Record
from penstock.runtime.replicas.replicas import Replicas
from penstock.runtime.rows.reader import ChunkRead, SourceFailed
from penstock.runtime.rows.writer import BatchCommitted, Writer
from penstock.runtime.run.phases import Phase
from penstock.runtime.watch.clock import RunClock
from penstock.runtime.watch.signals import Interrupts

_POINTS = {kind: f"perform.{kind.__name__}" for kind in Instruction.__subclasses__()}
TICK_S = 0.2  # how often the core looks at its clocks


class Shell:
    """`ended`: the status of the phase once it has one. `launches`: per replica, how it is started as planned, and on
    each rung below that (see planner/ladder.py)."""

    def __init__(
        self,
        *,
        clock: RunClock,
        inbox: Inbox,
        interrupts: Interrupts,
        executor: Executor,
        launches: Sequence[Sequence[Launch]],
        writer: Writer,
        record: Record,
        phase: Phase,
    ) -> None:
        self.ended = ""
        self._clock, self._inbox, self._interrupts = clock, inbox, interrupts
        self._writer, self._record = writer, record
        self.phase = phase
        self._next_tick = 0.0
        self._selector = selectors.DefaultSelector()
        self._selector.register(inbox.fileno(), selectors.EVENT_READ, None)
        self.replicas = Replicas(
            clock=clock,
            executor=executor,
            launches=launches,
            record=record,
            selector=self._selector,
            requests_of=lambda send: self.phase.tasks.requests(send),
        )
        self._table: dict[type[Instruction], Callable[[Any], Iterable[Event]]] = {
            ev.ReadRows: self._read_rows,
            ev.StartTasks: self._start_tasks,
            ev.Adopt: self._adopt,
            ev.AdoptFamily: self._adopt_family,
            ev.CancelTasks: self._cancel_tasks,
            ev.DropRows: self._drop_rows,
            ev.Commit: self._commit,
            ev.PhaseEnded: self._phase_ended,
            ev.Deliver: self._deliver,
            ev.FailRequests: self._fail_requests,
            ev.PoolDown: self._pool_down,
            ev.Recovered: self._recovered,
            **self.replicas.table,
        }

    def begin_phase(self, phase: Phase) -> None:
        """The phase before has ended; replicas and their connections stay."""
        self.phase, self.ended = phase, ""

    def perform(self, instruction: Instruction) -> Iterable[Event]:
        kind = type(instruction)
        fault(_POINTS[kind])
        action = self._table.get(kind)
        return () if action is None else action(instruction)

    # ------------------------------------------------------------ rows

    def _start_tasks(self, start: ev.StartTasks) -> Iterable[Event]:
        return self.phase.tasks.start(start)

    def _read_rows(self, read: ev.ReadRows) -> Iterable[Event]:
        self.phase.reader.want(read.id, read.max_rows, read.below)
        return ()

    def _adopt(self, adopt: ev.Adopt) -> Iterable[Event]:
        self.phase.tasks.adopt(adopt)
        return ()

    def _adopt_family(self, adopt: ev.AdoptFamily) -> Iterable[Event]:
        self.phase.store.adopt_family(adopt.position, adopt.first_row)
        return ()

    def _cancel_tasks(self, cancel: ev.CancelTasks) -> Iterable[Event]:
        self.phase.tasks.cancel(cancel.tasks)
        return ()

    def _drop_rows(self, drop: ev.DropRows) -> Iterable[Event]:
        self.phase.store.drop(drop.rows)
        return ()

    def _commit(self, commit: ev.Commit) -> Iterable[Event]:
        store = self.phase.store
        batch = CommitBatch(
            finished=store.take_finished(commit.finished),
            dead=store.take_dead(commit.dead),
            ended=commit.ended,
            watermark=commit.watermark,
            publish_to=commit.publish_to,
            counts=commit.counts,
            total_rows=commit.total_rows,
            final=commit.final,
            partial=self.phase.tasks.take_paid(commit.ended, commit.partial),
            mark=commit.mark,
        )
        store.forget(commit.ended)
        self._writer.commit(commit.id, batch)
        return ()

    def _phase_ended(self, ended: ev.PhaseEnded) -> Iterable[Event]:
        self.ended = ended.status
        return ()

    # ------------------------------------------------------------ answers

    def _deliver(self, deliver: ev.Deliver) -> Iterable[Event]:
        items = self.replicas.batches[deliver.batch]
        self._record.delivered(deliver, items)
        return self.phase.tasks.deliver(deliver, items)

    def _fail_requests(self, failed: ev.FailRequests) -> Iterable[Event]:
        return self.phase.tasks.fail(failed, self.replicas.batches.get(failed.batch, ()))

    def _pool_down(self, down: ev.PoolDown) -> Iterable[Event]:
        self._record.pool_down(down)
        return [ev.StopRequested(cause=down.id, reason="failed")]

    def _recovered(self, recovered: ev.Recovered) -> Iterable[Event]:
        self._record.recovered(recovered)
        return ()

    # ------------------------------------------------------------ what happens

    def wait(self) -> list[Event]:
        """Wait until something happens or a tick is due; everything that has happened, as events."""
        events = self.replicas.wait(max(0.0, self._next_tick - self._clock.now()), self._inbox, self._from_thread)
        reason = self._interrupts.pending()
        if reason:
            events.append(ev.StopRequested(reason=reason))
        now = self._clock.now()
        if now >= self._next_tick:
            self._next_tick = now + TICK_S
            events.append(ev.Tick())
        return events

    def _from_thread(self, event: Event) -> list[Event]:
        if isinstance(event, ChunkRead):
            return self._chunk(event)
        if isinstance(event, SourceFailed):
            return self._source_failed(event)
        if isinstance(event, BatchCommitted):
            self._record.committed(event.receipt)
            return [ev.Committed(cause=event.cause, moved=event.receipt.moved)]
        return [event]

    def _chunk(self, event: ChunkRead) -> list[Event]:
        chunk = event.chunk
        if chunk is None:
            return [ev.SourceEnded(cause=event.cause, total_rows=event.total_rows, mark=event.mark)]
        store = self.phase.store
        store.add(chunk)
        for bad in chunk.unreadable:
            self._record.on_dead_row(store.record_unreadable(bad))
        return [
            ev.RowsRead(
                cause=event.cause,
                rows=chunk.positions,
                sizes_bytes=chunk.sizes_bytes,
                unreadable=[bad.position for bad in chunk.unreadable],
                next_position=chunk.next_position,
                families=[(family.position, family.sizes_bytes) for family in chunk.families],
                counted=_lost(chunk),
                mark=event.mark,
            )
        ]

    def _source_failed(self, event: SourceFailed) -> list[Event]:
        """What was read ends and is committed; then the run ends."""
        self._record.failed(str(event.error), event.error.exit_code)
        nothing = ev.RowsRead(cause=event.cause, rows=[], sizes_bytes=[], unreadable=[], next_position=0)
        return [nothing, ev.StopRequested(cause=event.cause, reason="failed")]

    def close(self) -> None:
        """End every replica; what they were doing is lost."""
        self.replicas.close()
        self._selector.close()


def _lost(chunk: Chunk) -> list[int]:
    """Positions whose source rows count as dead already."""
    if chunk.origins is None:
        return []
    alone = [position for position, origin in zip(chunk.positions, chunk.origins, strict=True) if origin.lost]
    return alone + [family.position for family in chunk.families if family.origins[0].lost]
