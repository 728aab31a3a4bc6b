"""The shell: performs the core's instructions and turns what happens into events. It decides nothing.

Instructions are dispatched by their type through one table. What takes time (reading, committing, replicas) is begun
here and comes back through `wait`.
"""

from __future__ import annotations

import random
import selectors
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from penstock.core import events as ev
from penstock.core.events import Event, Instruction
from penstock.engines.messages import Abort, Answer, Answers, Hello, LoadFailed, Setup, Sleep, TakeBack, Wake
from penstock.errors import PenstockError
from penstock.executors.base import Executor, Exit, Launch, Started
from penstock.ledger.base import CommitBatch, Counts
from penstock.runtime.clock import RunClock
from penstock.runtime.inbox import Inbox
from penstock.runtime.links import Link, answers_event, other_event, watch
from penstock.runtime.reader import ChunkRead, Reader, SourceFailed
from penstock.runtime.record import Record
from penstock.runtime.rows import RowStore
from penstock.runtime.signals import Interrupts
from penstock.runtime.tasks import Tasks
from penstock.runtime.totals import Totals
from penstock.runtime.writer import BatchCommitted, Writer
from penstock.version import __version__

TICK_S = 0.2  # how often the core looks at its clocks


class Phase(NamedTuple):
    """What belongs to one phase: where its rows come from, what is held of them, and what is done to them."""

    reader: Reader
    store: RowStore
    tasks: Tasks
    totals: Totals


class Shell:
    """`ended`: the status of the phase once it has one. `launches`: per replica, how it is started as planned, and on
    each rung below that (see core/planner/ladder.py)."""

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
        self.links: dict[int, Link] = {}
        self._clock, self._inbox, self._interrupts = clock, inbox, interrupts
        self._executor, self._launches = executor, launches
        self._names = [rungs[0].replica for rungs in launches]
        self._index = {name: index for index, name in enumerate(self._names)}
        self._writer, self._record = writer, record
        self.phase = phase
        self._setups: dict[tuple[int, int], Setup] = {}  # of replicas that can't be spoken to yet
        self._sent = Counts()
        self._batches: dict[int, Sequence[Answer]] = {}
        self._next_batch = 1
        self._answered: list[Link] = []
        self._next_tick = 0.0
        self._selector = selectors.DefaultSelector()
        self._selector.register(inbox.fileno(), selectors.EVENT_READ, None)
        self._watched_exits: set[int] = set()
        self._source_complete = False
        self._table: dict[type[Instruction], Callable[[Any], Iterable[Event]]] = {
            ev.ReadRows: self._read_rows,
            ev.StartTasks: self._start_tasks,
            ev.Adopt: self._adopt,
            ev.CancelTasks: self._cancel_tasks,
            ev.DropRows: self._drop_rows,
            ev.Commit: self._commit,
            ev.PhaseEnded: self._phase_ended,
            ev.StartReplica: self._start_replica,
            ev.KillReplica: self._kill_replica,
            ev.Send: self._send,
            ev.TakeBackFrom: self._take_back,
            ev.AbortOn: self._abort,
            ev.Deliver: self._deliver,
            ev.FailRequests: self._fail_requests,
            ev.PoolDown: self._pool_down,
            ev.Recovered: self._recovered,
            ev.SleepReplica: self._sleep_replica,
            ev.WakeReplica: self._wake_replica,
        }

    def begin_phase(self, phase: Phase) -> None:
        """The phase before has ended; replicas and their connections stay."""
        self.phase, self.ended, self._source_complete = phase, "", False

    def perform(self, instruction: Instruction) -> Iterable[Event]:
        action = self._table.get(type(instruction))
        return () if action is None else action(instruction)

    # ------------------------------------------------------------ rows

    def _start_tasks(self, start: ev.StartTasks) -> Iterable[Event]:
        return self.phase.tasks.start(start)

    def _read_rows(self, read: ev.ReadRows) -> Iterable[Event]:
        self.phase.reader.want(read.id, read.max_rows)
        return ()

    def _adopt(self, adopt: ev.Adopt) -> Iterable[Event]:
        self.phase.tasks.adopt(adopt)
        return ()

    def _cancel_tasks(self, cancel: ev.CancelTasks) -> Iterable[Event]:
        self.phase.tasks.cancel(cancel.tasks)
        return ()

    def _drop_rows(self, drop: ev.DropRows) -> Iterable[Event]:
        self.phase.store.drop(drop.rows)
        return ()

    def _commit(self, commit: ev.Commit) -> Iterable[Event]:
        store, totals = self.phase.store, self.phase.totals
        finished = store.take_finished(commit.finished)
        totals.carry(finished)
        batch = CommitBatch(
            finished=finished,
            dead=store.take_dead(commit.dead),
            ended=commit.ended,
            watermark=commit.watermark,
            publish_to=commit.publish_to,
            counts=totals.now(commit.counts),
            total_rows=commit.total_rows if self._source_complete else None,
            final=commit.final,
            carries=totals.carries,
        )
        store.forget(commit.ended)
        self._sent = batch.counts
        self._writer.commit(commit.id, batch)
        return ()

    def _phase_ended(self, ended: ev.PhaseEnded) -> Iterable[Event]:
        self.ended = ended.status
        return ()

    # ------------------------------------------------------------ replicas

    def _start_replica(self, start: ev.StartReplica) -> Iterable[Event]:
        launch = self._launches[start.replica][start.rung]
        try:
            started = self._executor.start(launch, start.incarnation)
        except (OSError, PenstockError) as error:
            reason = f"{launch.replica} can't be started: {error}"
            return [
                ev.ReplicaLoadFailed(
                    cause=start.id, replica=start.replica, incarnation=start.incarnation, reason=reason
                )
            ]
        setup = Setup(
            replica=launch.replica,
            config=launch.config,
            functions=list(launch.functions),
            timeout_s=launch.timeout_s,
        )
        self._setups[start.replica, start.incarnation] = setup
        self._connected(start.replica, started)
        self._watch_exits()
        return ()

    def _connected(self, index: int, started: Started) -> None:
        """A replica can be spoken to, now or once its host has dialled back."""
        if started.devices:
            self._record.devices[index] = started.devices
        if started.connection is None:
            return
        setup = self._setups.pop((index, started.incarnation), None)
        if setup is None:
            started.connection.close()  # it was given up meanwhile
            return
        link = Link(index, started.incarnation, started.connection, setup)
        self.links[index] = link
        watch(self._selector, link, writing=False)

    def _watch_exits(self) -> None:
        """Have the selector tell when a replica has ended; forget the files of those that have."""
        files = set(self._executor.exit_files())
        for file in sorted(self._watched_exits - files):
            self._selector.unregister(file)
        for file in sorted(files - self._watched_exits):
            self._selector.register(file, selectors.EVENT_READ, None)
        self._watched_exits = files

    def _kill_replica(self, kill: ev.KillReplica) -> Iterable[Event]:
        self._executor.kill(self._names[kill.replica], kill.incarnation, dump_stacks=kill.dump_stacks)
        self._record.kill_reasons[kill.replica, kill.incarnation] = kill.reason
        return ()

    def _link(self, replica: int, incarnation: int) -> Link | None:
        link = self.links.get(replica)
        return link if link is not None and link.incarnation == incarnation else None

    def _send(self, send: ev.Send) -> Iterable[Event]:
        link = self._link(send.replica, send.incarnation)
        if link is not None:
            self._record.request_sent(send.replica, self._clock.now())
            self._written(link, link.send_requests(*self.phase.tasks.requests(send)))
        return ()

    def _take_back(self, take: ev.TakeBackFrom) -> Iterable[Event]:
        link = self._link(take.replica, take.incarnation)
        if link is not None:
            self._written(link, link.send(TakeBack(ids=take.tasks)))
        return ()

    def _abort(self, abort: ev.AbortOn) -> Iterable[Event]:
        link = self._link(abort.replica, abort.incarnation)
        if link is not None:
            self._written(link, link.send(Abort(ids=abort.tasks)))
        return ()

    def _written(self, link: Link, everything: bool) -> None:
        if not everything and not link.lost:
            watch(self._selector, link, writing=True)

    def _deliver(self, deliver: ev.Deliver) -> Iterable[Event]:
        items = self._batches[deliver.batch]
        self._record.delivered(deliver, items)
        return self.phase.tasks.deliver(deliver, items)

    def _fail_requests(self, failed: ev.FailRequests) -> Iterable[Event]:
        return self.phase.tasks.fail(failed, self._batches.get(failed.batch, ()))

    def _sleep_replica(self, sleep: ev.SleepReplica) -> Iterable[Event]:
        link = self._link(sleep.replica, sleep.incarnation)
        if link is not None:
            self._written(link, link.send(Sleep()))
        return ()

    def _wake_replica(self, wake: ev.WakeReplica) -> Iterable[Event]:
        link = self._link(wake.replica, wake.incarnation)
        if link is not None:
            self._written(link, link.send(Wake()))
        return ()

    def can_sleep(self, replica: int) -> bool:
        """Whether the engine of this replica can give its devices' memory back and take it again."""
        link = self.links.get(replica)
        return link is not None and link.can_sleep

    def _pool_down(self, down: ev.PoolDown) -> Iterable[Event]:
        self._record.pool_down(down)
        return [ev.StopRequested(cause=down.id, reason="failed")]

    def _recovered(self, recovered: ev.Recovered) -> Iterable[Event]:
        self._record.recovered(recovered)
        return ()

    # ------------------------------------------------------------ what happens

    def wait(self) -> list[Event]:
        """Wait until something happens or a tick is due; everything that has happened, as events."""
        self._batches.clear()
        for link in self._answered:
            link.stamp = 0.0
        self._answered.clear()
        timeout_s = max(0.0, self._next_tick - self._clock.now())
        events: list[Event] = []
        exits = False
        for key, mask in self._selector.select(timeout_s):
            if isinstance(key.data, Link):
                self._serve(key.data, mask, events)
            elif key.fd == self._inbox.fileno():
                for event in self._inbox.take():
                    events += self._from_thread(event)
            else:
                exits = True
        if exits:
            for started in self._executor.connections():
                self._connected(self._index[started.replica], started)
            for exit_ in self._executor.exits():
                events += self._exited(exit_)
            self._watch_exits()
        reason = self._interrupts.pending()
        if reason:
            events.append(ev.StopRequested(reason=reason))
        now = self._clock.now()
        if now >= self._next_tick:
            self._next_tick = now + TICK_S
            events.append(ev.Tick())
        return events

    def _serve(self, link: Link, mask: int, events: list[Event]) -> None:
        if mask & selectors.EVENT_WRITE and link.flush() and not link.lost:
            watch(self._selector, link, writing=False)
        if mask & selectors.EVENT_READ:
            self._receive(link, events)

    def _receive(self, link: Link, events: list[Event]) -> None:
        messages = link.receive()
        now = self._clock.now()
        for message in messages:
            if isinstance(message, Answers):
                event = answers_event(link, message, self._next_batch)
                self._batches[self._next_batch] = message.items
                self._next_batch += 1
                self._record.answered(link.index, now)
                self._answered.append(link)
                events.append(event)
            elif isinstance(message, Hello):
                refusal = link.greet(message, __version__)
                if refusal:
                    events.append(
                        ev.ReplicaLoadFailed(replica=link.index, incarnation=link.incarnation, reason=refusal)
                    )
            else:
                if isinstance(message, LoadFailed):
                    self._record.load_codes[link.index] = message.code
                events += other_event(link, message, now)
        if link.lost:
            # The processes may still be there; their Exit tells the core, once nothing can come any more.
            self._forget(link)
            self._executor.kill(self._names[link.index], link.incarnation)

    def _forget(self, link: Link) -> None:
        try:
            self._selector.unregister(link.connection)
        except (KeyError, ValueError):
            pass  # forgotten already
        link.close()

    def _exited(self, exit_: Exit) -> list[Event]:
        index = self._index[exit_.replica]
        link = self._link(index, exit_.incarnation)
        self._setups.pop((index, exit_.incarnation), None)
        events: list[Event] = []
        if link is not None:
            if not link.lost:
                self._receive(link, events)  # what it said last
            self._forget(link)
            self._record.replica_ended(index, link)
            del self.links[index]
        lost = ev.ReplicaLost(
            replica=index,
            incarnation=exit_.incarnation,
            reason=self._record.reason_of(index, exit_, link),
            jitter=random.random(),
        )
        return [*events, lost]

    def _from_thread(self, event: Event) -> list[Event]:
        if isinstance(event, ChunkRead):
            return self._chunk(event)
        if isinstance(event, SourceFailed):
            return self._source_failed(event)
        if isinstance(event, BatchCommitted):
            receipt = event.receipt
            self._record.committed(receipt)
            self.phase.totals.committed(self._sent, receipt)
            return [ev.Committed(cause=event.cause, rejected=[dead.position for dead in receipt.rejected])]
        return [event]

    def _chunk(self, event: ChunkRead) -> list[Event]:
        chunk = event.chunk
        if chunk is None:
            self._source_complete = event.complete and self.phase.totals.first
            return [ev.SourceEnded(cause=event.cause, total_rows=event.total_rows)]
        store = self.phase.store
        store.add(chunk.positions, chunk.rows, chunk.origins)
        for bad in chunk.unreadable:
            self._record.buried(store.bury_unreadable(bad))
        return [
            ev.RowsRead(
                cause=event.cause,
                rows=chunk.positions,
                sizes_bytes=chunk.sizes_bytes,
                unreadable=[bad.position for bad in chunk.unreadable],
                next_position=chunk.next_position,
            )
        ]

    def _source_failed(self, event: SourceFailed) -> list[Event]:
        """What was read ends and is committed; then the run ends."""
        self._record.failed(str(event.error), event.error.exit_code)
        nothing = ev.RowsRead(cause=event.cause, rows=[], sizes_bytes=[], unreadable=[], next_position=0)
        return [nothing, ev.StopRequested(cause=event.cause, reason="failed")]

    def close(self) -> None:
        """End every replica; what they were doing is lost."""
        for link in list(self.links.values()):
            self._record.replica_ended(link.index, link)
            self._forget(link)
        self._executor.close()
        self._selector.close()
