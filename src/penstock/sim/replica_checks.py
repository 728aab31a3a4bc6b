"""What must hold of replicas, judged outside the core: when they are started, ended, put to sleep, and given up."""

from __future__ import annotations

from math import ceil

from msgspec import Struct

from penstock.core import events as ev
from penstock.core.dispatch.membership import REMOVED
from penstock.core.dispatch.restarts import LOADS_BEFORE_GIVING_UP
from penstock.core.shape import ReplicaShape
from penstock.sim.scenario import Scenario
from penstock.sim.tally import Coverage
from penstock.sim.violations import Violation

__all__ = ["KnownReplica", "ReplicaChecks", "weight"]


class KnownReplica(Struct):
    """As reported to the core: out is what was sent and has not ended, task -> attempt."""

    pool: int
    slots: int
    incarnation: int = 0
    up: bool = False  # started and not lost
    ready: bool = False  # reported so, and not to be killed
    was_ready: bool = False
    slots_now: int = 0  # as it said when it was ready, with tokens_now
    tokens_now: int = 0
    starved: dict[tuple[int, int], int] = {}
    share: float = 1.0  # the most that it was allowed to use
    killed: bool = False
    lost_in: int = -1  # the turn in which it was lost
    leaving: bool = False  # its phase has ended: what becomes of it is no death
    asleep: bool = False
    waking: bool = False
    slow: bool = False  # it was to end because it was slow
    times_slow: int = 0  # not only in a row
    peer_group: int = -1
    lowered: bool = False  # it ran out of memory while it started, and goes a rung down
    rung: int = 0
    rungs: int = 0
    phases: tuple[int, ...] = ()
    may_start: bool = True
    alone: int = -1  # the one request that it was sent since it was idle
    asked: dict[int, None] = {}  # called back, and not answered for yet
    begun: dict[int, None] = {}  # called back in vain
    fruitless: int = 0  # take-backs that brought nothing since it was last sent something, or answered
    never_ready: int = 0
    hopeless: bool = False  # it said why it can't load
    opened_at: float | None = None  # when it was given up, where it was for its deaths
    half_open: bool = False  # tried again, and nothing answered since
    removed: bool = False  # from its pool; drains: to finish what it has first
    drains: bool = False
    evicted: bool = False  # ended at once for that: what it had is not suspect
    gone: bool = False  # said to have left
    out: dict[int, int] = {}
    deaths: list[tuple[float, int]] = []  # all of them: when, and how much each counts for the circuit
    sure_deaths: list[tuple[float, int]] = []  # those that count for the circuit whatever was being tried


def _known(shape: ReplicaShape) -> KnownReplica:
    """Its slots are said when it is ready."""
    return KnownReplica(shape.pool, 0, rungs=shape.rungs, phases=shape.phases, peer_group=shape.peer_group)


def weight(deaths: list[tuple[float, int]]) -> int:
    return sum(weight for _, weight in deaths)


class ReplicaChecks:
    def __init__(self, scenario: Scenario, tally: Coverage) -> None:
        self.limits = scenario.dispatch
        self.tally = tally
        self.replicas = [
            KnownReplica(pool, host.slots, rungs=host.rungs, phases=host.phases, peer_group=host.peer_group)
            for pool, host in zip(scenario.replica_pools, scenario.hosts, strict=True)
        ]
        self.phases = scenario.phases
        self.phase = 0
        self._closing = False
        self.turn = 0
        self.draining = False

    # ------------------------------------------------------------ the replica set

    def saw_added(self, event: ev.AddReplica) -> None:
        shape = event.shape
        if event.replica == len(self.replicas):
            self.replicas.append(_known(shape))
            return
        replica, fresh = self.replicas[event.replica], _known(shape)
        fresh.incarnation, fresh.lost_in = replica.incarnation, replica.lost_in
        self.replicas[event.replica] = fresh

    def saw_removed(self, event: ev.RemoveReplica) -> None:
        replica = self.replicas[event.replica]
        if not replica.removed:
            replica.drains = event.drain and replica.ready
        replica.drains = replica.drains and event.drain
        replica.removed = True

    def replica_removed(self, event: ev.ReplicaRemoved) -> None:
        replica = self.replicas[event.replica]
        if not replica.removed or replica.up or replica.gone:
            raise Violation(f"replica {event.replica} is said to have been removed: {replica}")
        replica.gone = True

    def saw_slots(self, event: ev.SlotsChanged) -> None:
        replica = self.replicas[event.replica]
        if event.incarnation == replica.incarnation and replica.ready:
            replica.slots = replica.slots_now = event.slots

    def _check_removed(self) -> None:
        for index, replica in enumerate(self.replicas):
            if replica.removed and replica.ready and not replica.out:
                raise Violation(f"replica {index} was removed, has finished what it had, and stays: {replica}")
            if replica.removed and not replica.up and not replica.gone:
                raise Violation(f"replica {index} was removed and has ended, and nobody says so: {replica}")

    def tries_suspects(self, replica: KnownReplica) -> bool:
        raise NotImplementedError

    # ------------------------------------------------------------ phases

    def begin_phase(self, phase: int, *, closing: bool) -> None:
        """closing: after another one, whose pools have to close."""
        self._closing = closing
        self.phase = phase
        for replica in self.replicas:
            replica.leaving = replica.leaving or (replica.up and not self._belongs(replica))

    def _belongs(self, replica: KnownReplica) -> bool:
        """Whether the plan loads it in the phase."""
        in_phase = not replica.phases or self.phase in replica.phases
        return in_phase and replica.pool in self.phases[self.phase].pools

    def pools_closed(self) -> None:
        self._closing = False
        for index, replica in enumerate(self.replicas):
            if replica.up and not replica.asleep and not self._belongs(replica):
                raise Violation(f"the pools are closed, and replica {index} is still there: {replica}")

    def sleeps(self, sleep: ev.SleepReplica) -> None:
        replica = self.replicas[sleep.replica]
        lost = replica.lost_in == self.turn
        if sleep.incarnation != replica.incarnation or not (replica.ready or lost) or replica.out:
            raise Violation(f"replica {sleep.replica} was put to sleep: {replica}")
        if self._belongs(replica):
            raise Violation(f"replica {sleep.replica} was put to sleep in phase {self.phase}, which needs it")
        replica.ready = False

    def saw_asleep(self, event: ev.ReplicaAsleep) -> None:
        replica = self.replicas[event.replica]
        if event.incarnation == replica.incarnation and replica.up and not replica.killed:
            replica.asleep = True

    def wakes(self, wake: ev.WakeReplica) -> None:
        replica = self.replicas[wake.replica]
        if wake.incarnation != replica.incarnation or not replica.asleep or not self._belongs(replica):
            raise Violation(f"replica {wake.replica} was woken: {replica}")
        self._check_room(wake.replica)
        replica.asleep, replica.leaving, replica.waking = False, False, True

    def _check_room(self, index: int) -> None:
        """Nothing is loaded or woken while what the phase before had loaded is still there."""
        there = [number for number, other in enumerate(self.replicas) if other.up and not other.asleep]
        late = [number for number in there if number != index and not self._belongs(self.replicas[number])]
        if late or self._closing:
            raise Violation(f"replica {index} takes memory in phase {self.phase}, and {late} have not left")

    # ------------------------------------------------------------ what the core receives

    def saw_ready(self, event: ev.ReplicaReady) -> None:
        replica = self.replicas[event.replica]
        if event.incarnation == replica.incarnation and replica.up and not replica.killed:
            replica.waking = False
            if replica.leaving:
                return
            replica.ready = replica.was_ready = True
            replica.slots = replica.slots_now = event.slots
            replica.tokens_now = event.kv_tokens
            replica.never_ready = 0

    def saw_load_failed(self, event: ev.ReplicaLoadFailed) -> None:
        replica = self.replicas[event.replica]
        leaves = replica.leaving or replica.removed
        if event.incarnation != replica.incarnation or not replica.up or replica.waking or leaves:
            return
        if event.out_of_memory and replica.rung < replica.rungs:
            replica.lowered = True
            replica.rung += 1
        elif not replica.lowered:
            replica.up = replica.ready = replica.may_start = False
            replica.hopeless = True

    def recent(
        self, deaths: list[tuple[float, int]], now: float, device_failed: bool = False
    ) -> list[tuple[float, int]]:
        weight = ceil(self.limits.circuit_deaths / self.limits.device_deaths) if device_failed else 1
        return [death for death in deaths if death[0] >= now - self.limits.circuit_window_s] + [(now, weight)]

    # ------------------------------------------------------------ what the core says

    def started(self, start: ev.StartReplica, now: float) -> None:
        replica, retry_s = self.replicas[start.replica], self.limits.circuit_retry_s
        if replica.opened_at is not None:
            if retry_s is None or now < replica.opened_at + retry_s:
                raise Violation(f"replica {start.replica} was given up, and is tried again: {replica}")
            self.tally.hit("circuit: tried again")
            replica.opened_at, replica.may_start, replica.half_open = None, True, True
            replica.deaths, replica.sure_deaths, replica.never_ready, replica.times_slow = [], [], 0, 0
        if start.incarnation != replica.incarnation + 1 or replica.up or not replica.may_start:
            raise Violation(f"replica {start.replica} was started again as {start.incarnation}: {replica}")
        replica.incarnation = start.incarnation
        if replica.removed:
            raise Violation(f"replica {start.replica} was started, and was removed before: {replica}")
        if not self._belongs(replica):
            raise Violation(f"replica {start.replica} was started in phase {self.phase}, which is not its own")
        if start.rung != replica.rung:
            raise Violation(f"replica {start.replica} was started on rung {start.rung}: {replica}")
        if start.share > replica.share + 1e-9:
            raise Violation(f"replica {start.replica} uses {start.share} of its room, though that was too much")
        self._check_room(start.replica)
        replica.up, replica.was_ready, replica.killed, replica.alone = True, False, False, -1
        replica.lowered = replica.waking = replica.slow = False
        self.tally.hit("restart", int(start.incarnation > 1))

    def kill(self, kill: ev.KillReplica) -> None:
        replica = self.replicas[kill.replica]
        # Its phase may end, or it may be removed, while it is ended for something else.
        again = replica.killed and not (replica.leaving or replica.removed)
        if kill.incarnation == replica.incarnation and replica.lost_in == self.turn:
            return  # the two crossed
        if kill.incarnation != replica.incarnation or not replica.up or again:
            raise Violation(f"replica {kill.replica} was killed as {kill.incarnation}: {replica}")
        if kill.reason == REMOVED:
            if replica.drains and replica.out:
                raise Violation(f"replica {kill.replica} was to finish what it has, and is ended: {replica}")
            replica.evicted = replica.evicted or not replica.killed
        replica.killed, replica.ready = True, False

    def recovered(self, recovered: ev.Recovered, now: float) -> None:
        """Who is said to be slow serves, has something to do, tries no suspects, and another of its kind serves too."""
        if recovered.kind == "circuit":
            replica = self.replicas[recovered.replica]
            if not self.given_up(replica):
                raise Violation(f"replica {recovered.replica} is given up for no reason: {replica}")
            replica.opened_at = now
        if recovered.kind == "slow":
            replica = self.replicas[recovered.replica]
            peers = [
                each for each in self.replicas if each.pool == replica.pool and each.peer_group == replica.peer_group
            ]
            others = any(each.ready for each in peers if each is not replica)
            serves = replica.ready and replica.out and others and not self.tries_suspects(replica)
            if self.draining or replica.peer_group < 0 or not serves:
                raise Violation(f"replica {recovered.replica} is replaced for being slow: {replica}")
            replica.slow = True
            replica.times_slow += 1

    def given_up(self, replica: KnownReplica) -> bool:
        """Whether what is known of it is enough for its circuit to open."""
        deaths, loads = self.most(replica)
        too_slow = replica.slow and replica.times_slow >= self.limits.slow_times
        return weight(replica.deaths) >= deaths or replica.never_ready >= loads or too_slow

    def most(self, replica: KnownReplica) -> tuple[int, int]:
        """Deaths, and loads that come to nothing, after which it is given up."""
        return (1, 1) if replica.half_open else (self.limits.circuit_deaths, LOADS_BEFORE_GIVING_UP)

    def pool_down(self, pool: int) -> None:
        """Only when each of its replicas was given up, for a reason."""
        self.tally.hit("pool down")
        for index, replica in enumerate(self.replicas):
            if replica.pool != pool or replica.removed or replica.hopeless or not self._belongs(replica):
                continue
            for_good = replica.opened_at is not None and self.limits.circuit_retry_s is None
            if replica.up or not for_good:
                raise Violation(f"pool {pool} is given up, but replica {index} could serve: {replica}")
