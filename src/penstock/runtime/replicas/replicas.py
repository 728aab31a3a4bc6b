"""The replicas of a run or of a launched pool: performs what the dispatcher says to them, and turns what they say into
its events. It decides nothing."""

from __future__ import annotations

import random
import selectors
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from penstock.core import events as ev
from penstock.core.events import Event, Instruction
from penstock.errors import PenstockError
from penstock.executors.base import Executor, Exit, Launch, Started
from penstock.faults import fault
from penstock.host.causes import is_device_failure, is_out_of_memory
from penstock.protocol.messages import (
    Abort,
    Answer,
    AnswerParts,
    Answers,
    Hello,
    LoadFailed,
    Request,
    Setup,
    Sleep,
    TakeBack,
    Wake,
)
from penstock.runtime.replicas.links import Link, answers_event, other_event, refusals_event, watch
from penstock.runtime.replicas.record import Record
from penstock.runtime.watch.clock import RunClock
from penstock.version import __version__

LOOK_S = 1.0  # between two looks at replicas that were killed

RequestsOf = Callable[[ev.Send], list[Request]]


class Replicas:
    """links: to those that can be spoken to. batches: the answers of this turn, by the numbers of AnswersArrived.

    launches     per replica, how it is started as planned, and on each rung below (see planner/ladder.py)
    requests_of  the bytes sent for a Send instruction
    """

    def __init__(
        self,
        *,
        clock: RunClock,
        executor: Executor,
        launches: Sequence[Sequence[Launch]],
        record: Record,
        selector: selectors.BaseSelector,
        requests_of: RequestsOf,
    ) -> None:
        self.links: dict[int, Link] = {}
        self.batches: dict[int, Sequence[Answer]] = {}
        self._clock, self._executor, self._launches, self._record = clock, executor, launches, record
        self._selector, self._requests_of = selector, requests_of
        self._names = [rungs[0].replica for rungs in launches]
        self._index = {name: index for index, name in enumerate(self._names)}
        self.listeners: dict[int, Callable[[bytes], None]] = {}  # of parts, by Request.listener
        self._next_batch = 1
        self._answered: list[Link] = []
        self._has_news = False
        self._watched: set[int] = set()
        self._ending: set[tuple[int, int]] = set()  # killed, and not yet reported as ended
        self._look_s = 0.0  # when these are looked at next, whether or not their executor has something to tell
        self._setups: dict[tuple[int, int], Setup] = {}  # of replicas that can't be spoken to yet
        self.table: dict[type[Instruction], Callable[[Any], Iterable[Event]]] = {
            ev.StartReplica: self._start_replica,
            ev.KillReplica: self._kill_replica,
            ev.SleepReplica: self._sleep_replica,
            ev.WakeReplica: self._wake_replica,
            ev.Send: self._send,
            ev.TakeBackFrom: self._take_back,
            ev.AbortOn: self._abort,
        }

    def begin_turn(self) -> None:
        """What came in the turn before has been dealt with."""
        self.batches.clear()
        for link in self._answered:
            link.stamp = 0.0
        self._answered.clear()

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
        version = launch.config.revision or ""
        setup = Setup(launch.replica, launch.config, launch.work, share=start.share, version=version)
        self._setups[start.replica, start.incarnation] = setup
        heard = self._connected(start.replica, started)
        self._watch_exits()
        return heard

    def _connected(self, index: int, started: Started) -> list[Event]:
        """A replica can be spoken to, now or once its host has dialled back. From here on it must not be silent."""
        if started.connection is None:
            self._record.devices[index] = ()  # it has none until it is placed; the plan's numbers may be another's
            return []
        if started.devices:
            self._record.devices[index] = started.devices
        fault("replica.connected")
        setup = self._setups.pop((index, started.incarnation), None)
        if setup is None:
            started.connection.close()  # it was given up meanwhile
            return []
        link = Link(index, started.incarnation, started.connection, setup)
        self.links[index] = link
        watch(self._selector, link, writing=False)
        return [ev.HeartbeatArrived(replica=index, incarnation=link.incarnation, executing=0, waiting=0, progress=0)]

    def _watch_exits(self) -> None:
        """Have the selector tell when a replica has ended; forget the files of those that have."""
        files = set(self._executor.news_files())
        for file in sorted(self._watched - files):
            self._selector.unregister(file)
        for file in sorted(files - self._watched):
            self._selector.register(file, selectors.EVENT_READ, None)
        self._watched = files

    def _kill_replica(self, kill: ev.KillReplica) -> Iterable[Event]:
        self._end(kill.replica, kill.incarnation, dump_stacks=kill.dump_stacks)
        self._record.kill_reasons[kill.replica, kill.incarnation] = kill.reason
        return ()

    def _end(self, index: int, incarnation: int, *, dump_stacks: bool = False) -> None:
        self._executor.kill(self._names[index], incarnation, dump_stacks=dump_stacks)
        self._ending.add((index, incarnation))

    def _link(self, replica: int, incarnation: int) -> Link | None:
        link = self.links.get(replica)
        return link if link is not None and link.incarnation == incarnation else None

    def _send(self, send: ev.Send) -> Iterable[Event]:
        link = self._link(send.replica, send.incarnation)
        if link is not None:
            self._record.request_sent(send.replica, self._clock.now())
            refused = link.send_requests(self._requests_of(send))
            self._written(link, not link.unsent)
            if refused:
                return [refusals_event(link, refused, self._kept(refused))]
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

    # ------------------------------------------------------------ what they say

    def serve(self, key: selectors.SelectorKey, mask: int) -> list[Event]:
        """One of their descriptors is ready."""
        events: list[Event] = []
        if isinstance(key.data, Link):
            self._serve(key.data, mask, events)
        else:
            self._has_news = True
        return events

    def look(self) -> list[Event]:
        """What the executor has to say, if it has announced something, or one that was ended is overdue."""
        if not self._has_news and not self._overdue():
            return []
        self._has_news = False
        return self._ended()

    def _overdue(self) -> bool:
        """Whether it is time to look at those that were killed: a guardian that hangs says nothing by itself."""
        now = self._clock.now()
        if not self._ending or now < self._look_s:
            return False
        self._look_s = now + LOOK_S
        return True

    def _ended(self) -> list[Event]:
        """News from the executor: hosts that have connected, and processes that have exited."""
        events: list[Event] = []
        for item in self._executor.news():
            if isinstance(item, Started):
                events += self._connected(self._index[item.replica], item)
            else:
                events += self._exited(item)
        self._watch_exits()
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
                event = answers_event(link, message, self._kept(message.items))
                self._record.answered(link.index, now)
                self._answered.append(link)
                events.append(event)
            elif isinstance(message, AnswerParts):
                events += self._parts(link, message)
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
            self._end(link.index, link.incarnation)

    def _parts(self, link: Link, message: AnswerParts) -> Iterable[Event]:
        """Pass parts on, unread. Without a listener nothing was sent, and the request may run again. So it may where
        the replica was ended before its first part came: the parts of the next attempt are another beginning."""
        listen = self.listeners.get(message.listener)
        if listen is None or (link.index, link.incarnation) in self._ending:
            return ()
        listen(message.frame)
        if not message.first:
            return ()
        tasks, attempts = map(list, zip(*message.first, strict=True))
        return [ev.FirstParts(replica=link.index, incarnation=link.incarnation, tasks=tasks, attempts=attempts)]

    def _kept(self, answers: Sequence[Answer]) -> int:
        """The number under which these answers lie in `batches` for this turn."""
        number = self._next_batch
        self.batches[number] = answers
        self._next_batch += 1
        return number

    def _forget(self, link: Link) -> None:
        try:
            self._selector.unregister(link.connection)
        except (KeyError, ValueError):
            pass  # forgotten already
        link.close()

    def _exited(self, exit_: Exit) -> list[Event]:
        fault("replica.exited")
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
        self._ending.discard((index, exit_.incarnation))
        reason = self._record.reason_of(index, exit_, link)
        lost = ev.ReplicaLost(
            replica=index,
            incarnation=exit_.incarnation,
            reason=reason,
            jitter=random.random(),
            out_of_memory=is_out_of_memory(reason),
            device_failed=is_device_failure(reason),
        )
        return [*events, lost]

    def close(self) -> None:
        """End every replica; what they were doing is lost."""
        for link in list(self.links.values()):
            self._record.replica_ended(link.index, link)
            self._forget(link)
        self._executor.close()
