"""The faults of a schedule, struck when their time comes or an occasion arises."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from penstock.core.events import Event, StopRequested
from penstock.sim.faults import Fault, Rates
from penstock.sim.replicas import DEVICE_FAILED, Host, SimAnswer

if TYPE_CHECKING:
    from penstock.sim.world import World

__all__ = ["Strikes"]

DEVICE_SHARE = 0.2  # of the crashes: the device is said to have failed


class Strikes:
    """All chance after the beginning of a scenario comes from here."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.schedule = world.scenario.schedule
        self._rng = Random(world.scenario.seed ^ 0x5EED)
        self._slow: dict[int, tuple[float, float]] = {}  # replica -> until when, how many times
        self._slow_commits_until = 0.0
        self._late_ticks_until = 0.0
        if not self.schedule.faults and not any(getattr(self.schedule.rates, name) for name in Rates.__struct_fields__):
            world.tally.hit("undisturbed")

    def arm(self) -> None:
        for fault in self.schedule.faults:
            self.world.at(fault.at_s, partial(self._strike, fault), life=0)

    def chance(self) -> float:
        return self._rng.random()

    def rates(self) -> Rates:
        return self.schedule.rates_at(self.world.now)

    # ------------------------------------------------------------ by chance

    def befalls(self) -> Iterable[str]:
        """What becomes of one message of a host: the copies that arrive, each in order ("") or not."""
        rates, chance, tally = self.rates(), self.chance(), self.world.tally
        for name, rate in (("late", rates.late), ("reordered", rates.reordered), ("lost", rates.lost)):
            if chance < rate:
                tally.hit(f"answer: {name}")
                return () if name == "lost" else (name,)
            chance -= rate
        if chance < rates.twice:
            tally.hit("answer: twice")
            return ("", "reordered")
        return ("",)

    def slowness(self, replica: int) -> float:
        until, times = self._slow.get(replica, (0.0, 1.0))
        return times if self.world.now < min(until, self.schedule.until_s) else 1.0

    def commit_s(self) -> float:
        if self.world.now < min(self._slow_commits_until, self.schedule.until_s):
            self.world.tally.hit("slow commit")
            return self.world.scenario.commit_s * (5 + 30 * self.chance())
        return self.world.scenario.commit_s

    def tick_s(self) -> float:
        if self.world.now < min(self._late_ticks_until, self.schedule.until_s):
            self.world.tally.hit("late tick")
            return 1.0 + 3.0 * self.chance()
        return self.world.scenario.tick_s

    # ------------------------------------------------------------ at its time

    def _strike(self, fault: Fault) -> Iterable[Event]:
        world, kind = self.world, fault.kind
        if world.trace is not None:
            world.trace.note(world.now, f"fault: {kind} on replica {fault.replica} ({fault.amount:.3f})")
        duration_s = 1.0 + 6.0 * fault.amount
        if kind == "slow":
            world.tally.hit("slow")
            self._slow[fault.replica] = (world.now + duration_s, 3.0 + 7.0 * fault.amount)
        elif kind == "slow_commits":
            self._slow_commits_until = world.now + duration_s
        elif kind == "late_ticks":
            self._late_ticks_until = world.now + duration_s
        elif not world.coordinator.alive:
            return ()
        elif kind == "stop":
            return (StopRequested(reason="stopped"),)
        elif kind == "kill":
            self._kill(fault.amount)
        else:
            self._strike_host(world.coordinator.hosts.get(fault.replica), fault)
        return ()

    def _kill(self, amount: float) -> None:
        """The coordinator, between two turns or within one."""
        if amount < 0.5:
            self.world.end_life("killed")
        else:
            self.world.coordinator.kill_in = 1 + int(amount * 20)

    def _strike_host(self, host: Host | None, fault: Fault) -> None:
        if host is None or host.state == "dead":
            return
        kind = fault.kind
        if kind in ("crash", "oom"):
            host.die(DEVICE_FAILED if kind == "crash" and fault.amount < DEVICE_SHARE else kind)
        elif kind in ("hang", "hang_silent"):
            host.hang(beats=kind == "hang")
        elif kind == "stall":
            self.world.tally.hit("stall")
            host.stall(2.5 + 2.0 * fault.amount)
        elif kind == "cut":
            self.world.tally.hit("cut")
            host.tell_lost("connection lost", 0.0)
            host.later(0.5 + fault.amount, partial(host.die, "crash after a cut"))
        elif host.state == "ready":
            self._forge(host, fault)

    def _forge(self, host: Host, fault: Fault) -> None:
        """An answer that matches a request in flight in all but one thing."""
        coordinator = self.world.coordinator
        there = coordinator.requests.out_on(host.replica)
        if fault.kind == "forge_replica":
            others = [index for index in coordinator.hosts if index != host.replica]
            there = [item for index in others for item in coordinator.requests.out_on(index)]
        if not there:
            return
        task, attempt = there[int(fault.amount * len(there))]
        reasons = {
            "forge_attempt": "other attempt",
            "forge_incarnation": "other incarnation",
            "forge_replica": "other replica",
        }
        reason = reasons[fault.kind]
        self.world.tally.hit(f"answer: {reason}")
        other = attempt + (99 if fault.amount < 0.5 else -1) if fault.kind == "forge_attempt" else attempt
        answer = SimAnswer(task, other, (-1, (), -1), "", 1, 1, reason)
        incarnation = host.incarnation - 1 if fault.kind == "forge_incarnation" else host.incarnation
        host.tell([answer], incarnation=incarnation)
