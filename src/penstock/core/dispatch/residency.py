"""When a pool's replicas are loaded: from the phase that opens it to the one that can do without.

    OpenPools ──▶ started (or woken), or with the first request where the pool is lazy
    ClosePools ─▶ ended, or asleep where the pool will be used again and its engines can; then PoolsClosed

Between ClosePools and PoolsClosed nothing is started: what is to come needs the memory of what leaves.
"""

from __future__ import annotations

from penstock.core import events as ev
from penstock.core.dispatch.pool import Pool
from penstock.core.dispatch.replica import Replica
from penstock.core.dispatch.state import DispatchState

LEFT = "phase finished"


class Residency:
    """closing: PoolsClosed is to come. leaving: replicas that it waits for."""

    def __init__(self, state: DispatchState) -> None:
        self._state = state
        self.leaving: dict[int, Replica] = {}
        self.closing = False

    # ------------------------------------------------------------ pools open

    def open(self, event: ev.OpenPools) -> None:
        self._state.phase = event.phase
        for index in event.pools:
            pool = self._state.pools[index]
            if pool.opened:
                self._start(pool)  # replicas that it has in this phase only
                continue
            pool.opened = True
            pool.lazy = index in event.lazy and not pool.waiting()
            self._start(pool)

    def first_request(self, pool: Pool) -> None:
        """A request waits in the pool. While others leave nothing starts; `check` follows."""
        if pool.lazy and not self.closing:
            pool.lazy = False
            self._start(pool)

    def start_in(self, pool: Pool) -> None:
        """A replica has come to the pool. Where the pool is not open, or others leave, OpenPools starts it."""
        if pool.opened and not self.closing:
            self._start(pool)

    def _start(self, pool: Pool) -> None:
        # Its model is loaded for the first request: where every row was filtered before, never.
        if pool.lazy:
            return
        for replica in pool.replicas:
            if not self._state.belongs(replica):
                continue
            if replica.can("wake"):
                self._state.wake(replica)
            elif replica.state == "off":
                self._state.start(replica)
        self._state.check_pool(pool)  # those of this phase may all have been given up in another

    # ------------------------------------------------------------ pools close

    def close(self, event: ev.ClosePools) -> None:
        self._state.phase = event.phase
        # From here on nothing starts, also no restart that is due: memory is promised to the next phase.
        self.closing = True
        for pool in self._state.pools:
            closes = pool.index in event.pools
            # Longest first holds for the end of a phase only.
            pool.forget_phase()
            if closes:
                pool.opened = pool.lazy = False
            for replica in pool.replicas:
                if closes or (pool.opened and not self._state.belongs(replica)):
                    self._leave(replica, sleep=pool.index in event.sleep)
        self.check()

    def _leave(self, replica: Replica, *, sleep: bool) -> None:
        state = self._state
        # It was put to sleep in a phase before, and is needed in neither.
        if sleep and replica.state == "asleep":
            return
        if sleep and replica.can("sleep"):
            replica.move("sleep")
            replica.liveness.progress_at = state.now
            self.leaving[replica.index] = replica
            state.emit(ev.SleepReplica(replica=replica.index, incarnation=replica.incarnation))
        elif replica.state != "failed" and replica.can("leave"):  # who was given up is so in later phases too
            replica.ending_because = "phase"
            self.end(replica, LEFT)
        state.touch(replica)

    def end(self, replica: Replica, reason: str) -> None:
        """It is to leave. Its memory is free when it has."""
        replica.move("leave")
        if replica.state == "leaving":
            self.leaving[replica.index] = replica
            self._state.order_end(replica, reason)
        self._state.touch(replica)

    def too_slow(self, replica: Replica) -> None:
        """It does not fall asleep: end it."""
        replica.ending_because = "phase"
        self.end(replica, f"it did not fall asleep in {self._state.limits.sleep_timeout_s:.0f} s")

    def asleep(self, replica: Replica, event: ev.ReplicaAsleep) -> None:
        if replica.can("asleep"):
            replica.move("asleep")
            if replica.state == "asleep":
                self.left(replica)

    def left(self, replica: Replica) -> None:
        """The replica has ended, or sleeps."""
        self.leaving.pop(replica.index, None)
        # Only now: the caller that removed the replica takes its devices to be free.
        if not replica.wanted and replica.state == "off":
            self._state.emit(ev.ReplicaRemoved(replica=replica.index))
        self.check()

    def check(self) -> None:
        if self.closing and not self.leaving:
            self.closing = False
            self._state.emit(ev.PoolsClosed())
            for pool in self._state.pools:
                if pool.opened and pool.waiting():
                    self.first_request(pool)  # it came while others were leaving

    # ------------------------------------------------------------ memory

    def lower(self, replica: Replica, reason: str) -> bool:
        """A start that ran out of memory steps one rung down, once its processes are gone; False on the last one."""
        memory, ends = replica.memory, replica.state == "killed"  # already, for something else
        # A rung is taken where the start ends, also where something else ended it meanwhile: the memory was too small.
        if memory.rung >= replica.shape.rungs or not (ends or replica.can("kill")):
            return False
        # One at a time: a rung costs throughput for the whole run, a further failed start only some minutes.
        memory.rung += 1
        self._state.emit(ev.Recovered(kind="ladder", replica=replica.index, count=memory.rung, reason=reason))
        if ends:
            replica.ending_because = "memory"
            self._state.touch(replica)
        else:
            self._state.kill(replica, reason, because="memory")
        return True
