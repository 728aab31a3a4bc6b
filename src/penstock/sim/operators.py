"""What an operator does while a scenario runs: replicas removed and added, pools paused, slots changed.

Drawn from a stream of its own, so that all else in a scenario is as it would be without.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.core import events as ev
from penstock.core.events import Event
from penstock.core.shape import ReplicaShape

if TYPE_CHECKING:
    from penstock.sim.world import World

__all__ = ["Operation", "Operator", "draw_operations"]

KINDS = {"drain": 4, "remove": 2, "add": 4, "pause": 2, "slots": 3}
MOST_SLOTS = 6
PATIENCE_S = 8.0  # how long the removal of a replica that tries suspects waits for one


class Operation(Struct, frozen=True):
    """kind: drain | remove | add | pause | slots. replica: of the plan; pause and add mean its pool."""

    at_s: float
    kind: str
    replica: int
    amount: float  # in [0, 1): how long, how many


def draw_operations(seed: int, replicas: int, until_s: float) -> tuple[Operation, ...]:
    """In one scenario of three; the operator's hands are off when faults stop."""
    rng = Random(f"{seed}/operators")
    if rng.random() >= 1 / 3:
        return ()
    horizon_s = min(until_s, 20.0)
    drawn = [
        Operation(
            rng.uniform(0.0, horizon_s),
            rng.choices(list(KINDS), list(KINDS.values()))[0],
            rng.randrange(replicas),
            rng.random(),
        )
        for _ in range(rng.choice((2, 4, 8)))
    ]
    return tuple(sorted(drawn, key=lambda operation: operation.at_s))


class Operator:
    def __init__(self, world: World) -> None:
        self.world = world
        for operation in world.scenario.operations:
            world.at(operation.at_s, partial(self._act, operation), life=0)

    def _act(self, operation: Operation) -> Iterable[Event]:
        if not self.world.coordinator.alive:
            return ()
        kind, pool = operation.kind, self.world.scenario.replica_pools[operation.replica]
        if kind == "remove" and operation.amount < 0.5:
            self._remove_one_that_tries_suspects(pool, self.world.now + PATIENCE_S)
            return ()
        if kind in ("drain", "remove"):
            event: Event | None = self._remove(operation.replica, pool, drain=kind == "drain")
        elif kind == "add":
            event = self._add(operation, pool)
        elif kind == "pause":
            event = ev.PausePool(pool=pool)
            self.world.at(0.1 + 2.0 * operation.amount, lambda: (ev.ResumePool(pool=pool),))
        else:
            event = self._change_slots(operation)
        if event is None:
            return ()
        self.world.tally.hit(f"operator: {kind}")
        return (event,)

    def _remove(self, replica: int, pool: int, *, drain: bool) -> Event | None:
        """Never the last one that could serve: with none the requests wait, as they should, for ever."""
        known = self.world.coordinator.requests.replicas
        others = [each for index, each in enumerate(known) if each.pool == pool and index != replica]
        if not any(each.may_start and not each.removed and not each.phases for each in others):
            return None
        return ev.RemoveReplica(replica=replica, drain=drain)

    def _remove_one_that_tries_suspects(self, pool: int, until_s: float) -> Iterable[Event]:
        """It is the one that an operator looks at after a death, and by chance alone it would hardly ever be met."""
        requests = self.world.coordinator.requests
        for index, each in enumerate(requests.replicas):
            if each.pool == pool and each.out and all(requests.tasks[number].suspect for number in each.out):
                event = self._remove(index, pool, drain=False)
                self.world.tally.hit("operator: remove", int(event is not None))
                return () if event is None else (event,)
        if self.world.now < until_s and self.world.coordinator.alive:
            self.world.at(0.05, partial(self._remove_one_that_tries_suspects, pool, until_s))
        return ()

    def _add(self, operation: Operation, pool: int) -> Event:
        """A new one, or one that was removed and has gone."""
        coordinator, scenario = self.world.coordinator, self.world.scenario
        known = coordinator.requests.replicas
        gone = [index for index, each in enumerate(known) if each.pool == pool and each.gone]
        index = gone[0] if gone and operation.amount < 0.5 else len(known)
        host = scenario.hosts[operation.replica]
        coordinator.shapes[index] = host
        shape = ReplicaShape(f"replica-{index}", pool, rungs=host.rungs, peer_group=host.peer_group)
        return ev.AddReplica(replica=index, shape=shape)

    def _change_slots(self, operation: Operation) -> Event | None:
        host = self.world.coordinator.hosts.get(operation.replica)
        if host is None or host.state != "ready":
            return None
        host.slots = 1 + int(operation.amount * MOST_SLOTS)
        return ev.SlotsChanged(replica=host.replica, incarnation=host.incarnation, slots=host.slots)
