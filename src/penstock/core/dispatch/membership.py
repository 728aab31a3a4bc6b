"""The replica set while it runs: replicas are added and removed, pools are paused, slots change.

    RemoveReplica, drain ──▶ draining ──nothing in flight──▶ leaving ──lost──▶ off, ReplicaRemoved
    RemoveReplica, now ─────────────────────────────────────▶ leaving; what was in flight goes to others

A replica that was removed keeps its index, off, until AddReplica names it again: events of its last incarnation that
are still on their way find it, and are dropped.
"""

from __future__ import annotations

from penstock.core import events as ev
from penstock.core.dispatch.pool import Pool
from penstock.core.dispatch.replica import Replica
from penstock.core.dispatch.residency import Residency
from penstock.core.dispatch.state import DispatchState

REMOVED = "it was removed from its pool"


class Membership:
    def __init__(self, state: DispatchState, residency: Residency) -> None:
        self._state, self._residency = state, residency
        self._draining: dict[int, Replica] = {}  # few, while a pool may have a thousand: looked at in each turn

    def add(self, event: ev.AddReplica) -> None:
        state = self._state
        pool = state.pools[event.shape.pool]
        if not 0 <= event.replica <= len(state.replicas):
            raise state.broken(f"replica {event.replica} was added, and there are {len(state.replicas)}")
        if event.replica == len(state.replicas):
            replica = Replica(event.replica, event.shape, state.limits, state.broken)
            state.replicas.append(replica)
            pool.add(replica)
        else:
            replica = state.replicas[event.replica]
            # Its last processes may still hold the devices that the new start needs.
            if replica.wanted or replica.state != "off" or replica.shape.pool != pool.index:
                raise state.broken(f"replica {event.replica} was added, and is there as {replica.state}")
            # Deaths, rungs and timings of before belong to other devices, or to what was repaired on these.
            replica.join(event.shape)
            pool.compare_peers()
        # PoolDown is said once for each time that the last replica is given up.
        pool.down = False  # it was, if those before have all been given up
        self._residency.start_in(pool)

    def remove(self, event: ev.RemoveReplica) -> None:
        replica = self._state.replicas[event.replica]
        # A drain may take as long as the longest answer: a second RemoveReplica without drain cuts it short.
        sooner = replica.state == "draining" and not event.drain
        if not (replica.wanted or sooner):
            return
        # Before anything else: whatever ends it from here on must not start it again.
        replica.wanted = False
        # What has not begun to serve, or has nothing to finish, has nothing to drain.
        if event.drain and replica.can("drain") and replica.in_flight:
            replica.move("drain")
            self._draining[replica.index] = replica
            self._state.touch(replica)
        else:
            self._leave(replica)
        # The others may all have been given up: then it was the last one that kept the pool from being down.
        self._state.check_pool(self._state.pool_of(replica))

    def check_drained(self, pool: Pool) -> None:
        for replica in list(self._draining.values()):
            if replica.state != "draining":
                del self._draining[replica.index]  # it has left, or was lost
            elif replica.shape.pool == pool.index and not replica.in_flight:
                self._leave(replica)

    def _leave(self, replica: Replica) -> None:
        if replica.can("leave"):
            # It hung, or was slow, and is being ended for that: what it had is dealt with as after any such end.
            replica.ending_because = replica.ending_because or "removed"
            self._residency.end(replica, REMOVED)
        if replica.state == "off":
            self._state.emit(ev.ReplicaRemoved(replica=replica.index))

    # ------------------------------------------------------------ what a pool may do

    def pause(self, event: ev.PausePool) -> None:
        pool = self._state.pools[event.pool]
        if pool.paused_at is None:
            pool.paused_at = self._state.now

    def resume(self, event: ev.ResumePool) -> None:
        pool = self._state.pools[event.pool]
        if pool.paused_at is not None:
            pool.quarantine.take_off(self._state.now - pool.paused_at)
        pool.paused_at = None
        self._state.dirty(pool)

    def slots_changed(self, replica: Replica, event: ev.SlotsChanged) -> None:
        # A start says by itself how many slots it has.
        if replica.answers:
            replica.resize(event.slots)
            self._state.pool_of(replica).offer(replica)
            self._state.touch(replica)
