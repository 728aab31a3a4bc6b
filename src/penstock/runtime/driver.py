"""The event loop of runs and of launched pools.

    threads ───▶ inbox ──┐
    replicas ▶ selector ─┼─▶ events ──▶ machine ──▶ instructions ──▶ table of effects ──┐
    clock ─────▶ tick ───┘      ▲                                                       │
                                └───────────────── what they bring at once ◀────────────┘

A machine decides (`Core` of a run, `Dispatch` of launched pools); effects perform. What belongs to replicas is done
here for everyone; what belongs to rows, or to calls, is done by the `Effects` that the driver is made with. What takes
time is begun by an effect and comes back through the inbox or a socket. `sim/world.py` is the same loop under virtual
time.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from penstock.core import events as ev
from penstock.core.check import Check
from penstock.core.events import Event, Instruction
from penstock.core.machine import Perform
from penstock.errors import InvariantError
from penstock.executors.base import Executor, Launch
from penstock.faults import fault
from penstock.protocol.messages import Answer, Request
from penstock.runtime.inbox import Inbox
from penstock.runtime.replicas.record import Record
from penstock.runtime.replicas.replicas import Replicas
from penstock.runtime.watch.clock import RunClock
from penstock.runtime.watch.integrity import Integrity

__all__ = ["TICK_S", "Driver", "Effects", "Table", "Turns"]

Table = dict[type[Instruction], Callable[[Any], Iterable[Event]]]
_KINDS = (*Instruction.__subclasses__(), *ev.ReplicaInstruction.__subclasses__())
_POINTS = {kind: f"perform.{kind.__name__}" for kind in _KINDS}
TICK_S = 0.2  # how often the machine looks at its clocks


class Turns(Protocol):
    """A machine, or several that are wired together."""

    def turn(self, events: Iterable[Event], now: float, perform: Perform) -> None: ...


class Effects(Protocol):
    """Whose requests they are: the rows of a run, or the calls of launched pools.

    ended  why the loop is to end; "" while it continues
    table  what is performed beside the replicas; an instruction that nobody has is for the record only
    """

    ended: str
    table: Table

    def requests(self, send: ev.Send) -> list[Request]:
        """The bytes sent for a Send instruction."""
        ...

    def deliver(self, deliver: ev.Deliver, items: Sequence[Answer]) -> Iterable[Event]: ...

    def fail(self, failed: ev.FailRequests, items: Sequence[Answer]) -> Iterable[Event]: ...

    def pool_down(self, down: ev.PoolDown) -> Iterable[Event]: ...

    def happened(self, events: list[Event]) -> list[Event]:
        """What the machine is given for what has happened: its own events as they are, those of threads translated."""
        ...


class Driver:
    """One machine, its effects, and the replicas that serve it. It decides nothing.

    launches   per replica, how it is started as planned, and on each rung below that (see planner/ladder.py)
    checks     of the machine's invariants, run when nothing else is to be done (see `Integrity`)
    on_broken  what is done about a broken one; None: it is raised, and ends the loop
    """

    def __init__(
        self,
        machine: Turns,
        effects: Effects,
        *,
        clock: RunClock,
        inbox: Inbox,
        executor: Executor,
        launches: Sequence[Sequence[Launch]],
        record: Record,
        checks: Sequence[Check] = (),
        on_broken: Callable[[InvariantError], None] | None = None,
    ) -> None:
        self._machine, self._effects = machine, effects
        self._clock, self._inbox, self._record = clock, inbox, record
        self._integrity = Integrity(checks, clock.now, on_broken)
        self._next_tick = 0.0
        self._selector = selectors.DefaultSelector()
        self._selector.register(inbox.fileno(), selectors.EVENT_READ, None)
        self.replicas = Replicas(
            clock=clock,
            executor=executor,
            launches=launches,
            record=record,
            selector=self._selector,
            requests_of=effects.requests,
        )
        self._table: Table = {
            ev.Deliver: self._deliver,
            ev.FailRequests: self._fail_requests,
            ev.PoolDown: self._pool_down,
            ev.Recovered: self._recovered,
            **self.replicas.table,
            **effects.table,
        }

    def run(self, events: list[Event], watch: Callable[[float], None] | None = None) -> None:
        """Turn until the effects have ended; `events` come first. `watch(now)` is called after every turn."""
        while not self._effects.ended:
            self._machine.turn(events, self._clock.now(), self._perform)
            if watch is not None:
                watch(self._clock.now())
            if not self._effects.ended:
                events = self._wait()

    def close(self) -> None:
        """End every replica; what they were doing is lost."""
        self.replicas.close()
        self._selector.close()

    # ------------------------------------------------------------ what the machine says

    def _perform(self, instruction: Instruction) -> Iterable[Event]:
        kind = type(instruction)
        fault(_POINTS[kind])
        action = self._table.get(kind)
        return () if action is None else action(instruction)

    def _deliver(self, deliver: ev.Deliver) -> Iterable[Event]:
        items = self.replicas.batches[deliver.batch]
        self._record.delivered(deliver, items)
        return self._effects.deliver(deliver, items)

    def _fail_requests(self, failed: ev.FailRequests) -> Iterable[Event]:
        return self._effects.fail(failed, self.replicas.batches.get(failed.batch, ()))

    def _pool_down(self, down: ev.PoolDown) -> Iterable[Event]:
        self._record.pool_down(down)
        return self._effects.pool_down(down)

    def _recovered(self, recovered: ev.Recovered) -> Iterable[Event]:
        self._record.recovered(recovered)
        return ()

    # ------------------------------------------------------------ what happens

    def _wait(self) -> list[Event]:
        """Wait until something happens or a tick is due; everything that has happened, as events of the machine."""
        self.replicas.begin_turn()
        happened: list[Event] = []
        for key, mask in self._select():
            if key.fd == self._inbox.fileno():
                happened += self._from_threads()
            else:
                happened += self.replicas.serve(key, mask)
        happened += self.replicas.look()
        events = self._effects.happened(happened)
        now = self._clock.now()
        if now >= self._next_tick:
            self._next_tick = now + TICK_S
            events.append(ev.Tick())
        return events

    def _select(self) -> list[tuple[selectors.SelectorKey, int]]:
        if self._integrity.due():
            ready = self._selector.select(0)
            if ready:
                return ready
            self._integrity.check()
        return self._selector.select(max(0.0, self._next_tick - self._clock.now()))

    def _from_threads(self) -> list[Event]:
        found: list[Event] = []
        for item in self._inbox.take():
            if isinstance(item, BaseException):
                raise item
            found.append(item)
        return found
