"""The two machines and the wiring between them.

                 rows read, tasks ended, committed            requests, answers, replicas
                        │                                            │
                        ▼          Drain, SourceExhausted            ▼
    perform ◀──────── Flow ────────────────────────────────────▶ Dispatch ────────▶ perform
                        ▲                  Drained                   │
                        └────────────────────────────────────────────┘

`turn` gives each event to its machine, has every instruction performed, and goes on with the events that this brings at
once, until nothing is left to say. What takes time comes back in a later turn. The runtime and the simulator are loops
around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from penstock.core import events as ev
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.events import Event, Instruction
from penstock.core.flow.flow import Flow

Perform = Callable[[Instruction], Iterable[Event]]

_FOR_DISPATCH = frozenset(
    (
        ev.OpenPools,
        ev.Submit,
        ev.Exhausted,
        ev.CancelRequests,
        ev.ReplicaReady,
        ev.ReplicaLoadFailed,
        ev.ReplicaLost,
        ev.AnswersArrived,
        ev.HeartbeatArrived,
        ev.DrainRequested,
    )
)


class Core:
    """`drain_grace_s`: how long requests in flight may take once the run is to stop."""

    def __init__(self, flow: Flow, dispatch: Dispatch, drain_grace_s: float = 10.0) -> None:
        self.flow = flow
        self.dispatch = dispatch
        self.drain_grace_s = drain_grace_s
        self._opened = False

    def turn(self, events: Iterable[Event], now: float, perform: Perform) -> None:
        """`perform` does what an instruction says and returns the events that it brought at once."""
        for_flow: list[Event] = []
        for_dispatch: list[Event] = []
        self._route(events, for_flow, for_dispatch)
        while for_flow or for_dispatch:
            instructions: list[Instruction] = []
            if for_dispatch:
                batch, for_dispatch = for_dispatch, []
                instructions += self.dispatch.handle(batch, now)
            if for_flow:
                batch, for_flow = for_flow, []
                instructions += self.flow.handle(batch, now)
            for instruction in instructions:
                self._route(self._wire(instruction), for_flow, for_dispatch)
                self._route(perform(instruction), for_flow, for_dispatch)

    def _route(self, events: Iterable[Event], for_flow: list[Event], for_dispatch: list[Event]) -> None:
        for event in events:
            if type(event) in _FOR_DISPATCH:
                for_dispatch.append(event)
            else:
                for_flow.append(event)
                if type(event) is ev.Tick:
                    for_dispatch.append(event)

    def _wire(self, instruction: Instruction) -> list[Event]:
        """What one machine says to the other."""
        kind, cause = type(instruction), instruction.id
        if kind is ev.StartTasks and not self._opened:
            self._opened = True
            return [ev.OpenPools(cause=cause, pools=list(range(len(self.dispatch.pools))))]
        if kind is ev.Drain:
            return [ev.DrainRequested(cause=cause, grace_s=self.drain_grace_s)]
        if kind is ev.Drained:
            return [ev.DispatchDrained(cause=cause)]
        if kind is ev.SourceExhausted:
            return [ev.Exhausted(cause=cause)]
        if isinstance(instruction, ev.CancelTasks):
            return [ev.CancelRequests(cause=cause, tasks=instruction.tasks)]
        return []
