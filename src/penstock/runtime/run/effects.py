"""The effects of a run: its rows are read, kept, rendered, committed, and their answers taken. They decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.core import events as ev
from penstock.core.events import Event
from penstock.data.base import Chunk
from penstock.ledger.base import CommitBatch
from penstock.protocol.messages import Answer, Request
from penstock.runtime.driver import Table
from penstock.runtime.replicas.record import Record
from penstock.runtime.rows.reader import ChunkRead, SourceFailed
from penstock.runtime.rows.writer import BatchCommitted, Writer
from penstock.runtime.run.phases import Phase
from penstock.runtime.watch.signals import Interrupts


class RunEffects:
    """See `runtime.driver.Effects`. `ended`: the status of the phase once it has one."""

    def __init__(self, phase: Phase, writer: Writer, record: Record, interrupts: Interrupts) -> None:
        self.ended = ""
        self.phase = phase
        self._writer, self._record, self._interrupts = writer, record, interrupts
        self.table: Table = {
            ev.ReadRows: self._read_rows,
            ev.StartTasks: self._start_tasks,
            ev.Adopt: self._adopt,
            ev.AdoptFamily: self._adopt_family,
            ev.CancelTasks: self._cancel_tasks,
            ev.DropRows: self._drop_rows,
            ev.Commit: self._commit,
            ev.PhaseEnded: self._phase_ended,
        }

    def begin_phase(self, phase: Phase) -> None:
        """The phase before has ended; replicas and their connections stay."""
        self.phase, self.ended = phase, ""

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

    # ------------------------------------------------------------ requests

    def requests(self, send: ev.Send) -> list[Request]:
        return self.phase.tasks.requests(send)

    def deliver(self, deliver: ev.Deliver, items: Sequence[Answer]) -> Iterable[Event]:
        return self.phase.tasks.deliver(deliver, items)

    def fail(self, failed: ev.FailRequests, items: Sequence[Answer]) -> Iterable[Event]:
        return self.phase.tasks.fail(failed, items)

    def pool_down(self, down: ev.PoolDown) -> Iterable[Event]:
        return [ev.StopRequested(cause=down.id, reason="failed")]

    # ------------------------------------------------------------ what happens

    def happened(self, events: list[Event]) -> list[Event]:
        found = [each for event in events for each in self._from_thread(event)]
        reason = self._interrupts.pending()
        if reason:
            found.append(ev.StopRequested(reason=reason))
        return found

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
                already_dead=_already_dead(chunk),
                mark=event.mark,
            )
        ]

    def _source_failed(self, event: SourceFailed) -> list[Event]:
        """What was read ends and is committed; then the run ends."""
        self._record.failed(str(event.error), event.error.exit_code)
        nothing = ev.RowsRead(cause=event.cause, rows=[], sizes_bytes=[], unreadable=[], next_position=0)
        return [nothing, ev.StopRequested(cause=event.cause, reason="failed")]


def _already_dead(chunk: Chunk) -> list[int]:
    """Positions whose source rows count as dead already."""
    if chunk.origins is None:
        return []
    alone = [position for position, origin in zip(chunk.positions, chunk.origins, strict=True) if origin.source_dead]
    return alone + [family.position for family in chunk.families if family.origins[0].source_dead]
