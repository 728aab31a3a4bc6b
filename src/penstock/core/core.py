"""The two machines and the wiring between them.

                 rows read, tasks ended, committed            requests, answers, replicas
                        │                                            │
                        ▼          Drain, SourceExhausted            ▼
    perform ◀──────── Flow ────────────────────────────────────▶ Dispatch ────────▶ perform
                        ▲                  Drained                   │
                        └────────────────────────────────────────────┘

`turn` gives each event to its machine, has every instruction performed, and continues with the events that this brings
at once, until nothing is left. What takes time comes back in a later turn. The runtime and the simulator are loops
around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from penstock.core import events as ev
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.events import Event, Instruction
from penstock.core.flow.flow import Flow
from penstock.core.machine import Perform

# A row of a model that reasons takes minutes, and is paid for by then; who can't wait interrupts again. A replica that
# gets nowhere is ended meanwhile as at any time.
DRAIN_GRACE_S = 600.0


class Core:
    """A run of one phase or several, with one dispatcher.

    drain_grace_s  how long requests in flight may take once the run is to stop
    pools, lazy    those of the first phase (None: all), and which of them start with their first request
    """

    def __init__(
        self,
        flow: Flow,
        dispatch: Dispatch,
        drain_grace_s: float = DRAIN_GRACE_S,
        *,
        pools: Sequence[int] | None = None,
        lazy: Sequence[int] = (),
        phase: int = 0,
    ) -> None:
        self.flow = flow
        self.dispatch = dispatch
        self.drain_grace_s = drain_grace_s
        self._pools = list(range(len(dispatch.pools)) if pools is None else pools)
        self._lazy, self._phase = list(lazy), phase
        self._wanted = False  # tasks have begun: the phase's pools are to open
        self._opened = False
        self._closing = False  # pools of the phase before still leave
        self._first: list[Event] = []
        # What one machine says to the other.
        self._wires: dict[type[Instruction], Callable[[Any], Sequence[Event]]] = {
            ev.StartTasks: self._on_start_tasks,
            ev.PoolsClosed: self._on_pools_closed,
            ev.Drain: lambda drain: [ev.DrainRequested(cause=drain.id, grace_s=self.drain_grace_s)],
            ev.Drained: lambda drained: [ev.DispatchDrained(cause=drained.id)],
            ev.SourceExhausted: lambda exhausted: [ev.Exhausted(cause=exhausted.id)],
            ev.CancelTasks: lambda cancel: [ev.CancelRequests(cause=cancel.id, tasks=cancel.tasks)],
            ev.Cancelled: lambda cancelled: [ev.TasksCancelled(cause=cancelled.id, tasks=cancelled.tasks)],
        }

    def begin(
        self, flow: Flow, pools: Sequence[int], lazy: Sequence[int] = (), sleep: Sequence[int] = (), phase: int = 0
    ) -> None:
        """The next phase, after PhaseEnded("done"): with the next turn, pools that it does without are closed (those of
        `sleep` put to sleep), and only then are its own opened."""
        leave = [pool for pool in self._pools if pool not in pools]
        # Closed before others open: the models of two phases need not fit on the devices together.
        self._first.append(ev.ClosePools(pools=leave, sleep=[pool for pool in sleep if pool in leave], phase=phase))
        self.flow = flow
        self._pools, self._lazy, self._phase = list(pools), list(lazy), phase
        self._wanted = self._opened = False
        self._closing = True

    def turn(self, events: Iterable[Event], now: float, perform: Perform) -> None:
        """`perform` does what an instruction says and returns the events that it brought at once."""
        for_flow: list[Event] = []
        for_dispatch: list[Event] = []
        first, self._first = self._first, []
        self._route([*first, *events] if first else events, for_flow, for_dispatch)
        while for_flow or for_dispatch:
            instructions: list[Instruction] = []
            if for_dispatch:
                batch, for_dispatch = for_dispatch, []
                # All of one kind at once: decisions are taken on the whole of what is known, once a call.
                instructions += self.dispatch.handle(batch, now)
            if for_flow:
                batch, for_flow = for_flow, []
                instructions += self.flow.handle(batch, now)
            for instruction in instructions:
                wire = self._wires.get(type(instruction))
                if wire is not None:
                    self._route(wire(instruction), for_flow, for_dispatch)
                self._route(perform(instruction), for_flow, for_dispatch)

    def _route(self, events: Iterable[Event], for_flow: list[Event], for_dispatch: list[Event]) -> None:
        for event in events:
            dispatches = self.dispatch.handles(event)
            if dispatches:
                for_dispatch.append(event)
            # An event without a rule goes to the flow, which raises. A Tick is for both.
            if not dispatches or self.flow.handles(event):
                for_flow.append(event)

    def _on_start_tasks(self, start: ev.StartTasks) -> Sequence[Event]:
        # With the first task, not with the phase: where everything is done already no model is loaded.
        if self._opened:
            return ()
        self._wanted = True
        return self._open(start.id)

    def _on_pools_closed(self, closed: ev.PoolsClosed) -> Sequence[Event]:
        self._closing = False
        return self._open(closed.id)

    def _open(self, cause: int) -> list[Event]:
        """Open the phase's pools, once there is something to do for them and those before have left."""
        if not self._wanted or self._opened or self._closing:
            return []
        self._opened = True
        return [ev.OpenPools(cause=cause, pools=self._pools, lazy=self._lazy, phase=self._phase)]
