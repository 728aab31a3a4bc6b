"""The replica set while it runs: replicas are added and removed, pools are paused, slots change.

    RemoveReplica, drain ──▶ draining ──nothing in flight──▶ leaving ──lost──▶ off, ReplicaRemoved
    RemoveReplica, now ─────────────────────────────────────▶ leaving; what was in flight goes to others

A replica that was removed keeps its index, off, until AddReplica names it again: events of its last incarnation that
are still on their way find it, and are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core import events as ev
from penstock.core.dispatch.replica import Replica

if TYPE_CHECKING:
    from penstock.core.dispatch.dispatch import Dispatch
    from penstock.core.dispatch.pool import Pool

__all__ = ["REMOVED", "Membership"]

REMOVED = "it was removed from its pool"


class Membership:
    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._draining: dict[int, Replica] = {}  # few, while a pool may have a thousand: looked at in each turn

    def add(self, event: ev.AddReplica) -> None:
        dispatch = self._dispatch
        pool = dispatch.pools[event.shape.pool]
        if event.replica == len(dispatch.replicas):
            replica = Replica(event.replica, event.shape, dispatch.limits, dispatch.broken)
            dispatch.replicas.append(replica)
            pool.add(replica)
        else:
            replica = dispatch.replicas[event.replica]
            # Its last processes may still hold the devices that the new start needs.
            if replica.wanted or replica.state != "off" or replica.shape.pool != pool.index:
                raise dispatch.broken(f"replica {event.replica} was added, and is there as {replica.state}")
            replica.join(event.shape)
            pool.compare_peers()
        pool.down = False  # it was, if those before have all been given up
        dispatch.residency.start_in(pool)

    def remove(self, event: ev.RemoveReplica) -> None:
        replica = self._dispatch.replicas[event.replica]
        # A drain may take as long as the longest answer: a second RemoveReplica without drain cuts it short.
        sooner = replica.state == "draining" and not event.drain
        if not (replica.wanted or sooner):
            return
        replica.wanted = False
        # What has not begun to serve, or has nothing to finish, has nothing to drain.
        if event.drain and replica.can("drain") and replica.in_flight:
            replica.move("drain")
            self._draining[replica.index] = replica
            self._dispatch.supervisor.touch(replica)
        else:
            self._leave(replica)
        # The others may all have been given up: then it was the last one that kept the pool from being down.
        self._dispatch.supervisor.check_pool(self._dispatch.pools[replica.shape.pool])

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
            self._dispatch.residency.end(replica, REMOVED)
        if replica.state == "off":
            self._dispatch.emit(ev.ReplicaRemoved(replica=replica.index))

    # ------------------------------------------------------------ what a pool may do

    def pause(self, event: ev.PausePool) -> None:
        self._dispatch.pools[event.pool].paused = True

    def resume(self, event: ev.ResumePool) -> None:
        pool = self._dispatch.pools[event.pool]
        pool.paused = False
        self._dispatch.dirty(pool)

    def slots_changed(self, event: ev.SlotsChanged) -> None:
        replica = self._dispatch.replicas[event.replica]
        # A start says by itself how many slots it has.
        if event.incarnation != replica.incarnation or not replica.answers:
            return
        replica.resize(event.slots)
        pool = self._dispatch.pools[replica.shape.pool]
        pool.offer(replica)
        self._dispatch.supervisor.touch(replica)
