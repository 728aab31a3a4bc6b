"""The life of the replicas: started, served, lost, started again or given up. States are in `states.py`.

What was in flight at an end is `failover.py`'s; which phase needs which replica is `residency.py`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core import events as ev
from penstock.core.dispatch.replica import Replica
from penstock.core.dispatch.states import Ending

if TYPE_CHECKING:
    from penstock.core.dispatch.dispatch import Dispatch
    from penstock.core.dispatch.pool import Pool

__all__ = ["Supervisor"]


class Supervisor:
    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._limits = dispatch.limits

    def start(self, replica: Replica) -> None:
        if self._dispatch.draining_until is not None:
            return
        replica.move("start")
        replica.incarnation += 1
        # Why the incarnation before ended says nothing of this one.
        replica.restarts.loaded, replica.ending_because = False, ""
        replica.restarts.started_at = self._dispatch.now
        replica.liveness.loads(self._dispatch.now)
        memory = replica.memory
        self._dispatch.emit(
            ev.StartReplica(
                replica=replica.index, incarnation=replica.incarnation, rung=memory.rung, share=memory.share
            )
        )

    def on_replica_ready(self, event: ev.ReplicaReady) -> None:
        replica = self._dispatch.replicas[event.replica]
        # Events of a host come in whatever order its connection and its end leave them, so they are asked for, not
        # trusted: only what the dispatcher decides itself may raise.
        if event.incarnation != replica.incarnation or not replica.can("ready"):
            return
        replica.move("ready")
        if replica.state != "ready":
            return  # the order to end crossed with it
        replica.became_ready(event.slots, event.kv_tokens, self._dispatch.now, shared=event.shared)
        pool = self._dispatch.pools[replica.shape.pool]
        pool.offer(replica)
        pool.recount(replica)
        self._dispatch.dirty(pool)

    def on_replica_load_failed(self, event: ev.ReplicaLoadFailed) -> None:
        replica = self._dispatch.replicas[event.replica]
        if event.incarnation != replica.incarnation or replica.ending_because == "memory":
            return
        if replica.state == "waking":
            self.kill(replica, f"it did not wake up: {event.reason}", because="hung")  # and is loaded again
            return
        # A smaller start may fit; only the last rung is a failure to load.
        if event.out_of_memory and self._dispatch.residency.lower(replica, event.reason):
            return
        if not replica.can("load_failed"):
            return
        replica.move("load_failed")
        if replica.state == "failed":
            # No circuit: an engine that says why it can't load will say so again.
            replica.restarts.last_reason, replica.memory.failed = event.reason, event.out_of_memory
            pool = self._dispatch.pools[replica.shape.pool]
            self._dispatch.dirty(pool)  # nothing need be held back for it any more
            self.check_pool(pool)

    def on_replica_lost(self, event: ev.ReplicaLost) -> None:
        replica = self._dispatch.replicas[event.replica]
        if event.incarnation != replica.incarnation or not replica.can("lost"):
            return
        replica.move("lost")
        if replica.state == "failed":
            return
        pool = self._dispatch.pools[replica.shape.pool]
        self._dispatch.dirty(pool)
        replica.restarts.last_reason = event.reason
        if not replica.wanted and replica.state == "waiting":
            replica.move("leave")  # it does not come back
        if replica.state == "off":  # it had to leave, or died asleep
            self._dispatch.failover.requeue(pool, replica, event.reason)
            self._dispatch.residency.left(replica)
            return
        # A rung lower is another configuration: its first start is no repetition of what came to nothing.
        replica.restarts.never_ready += not (replica.restarts.loaded or replica.ending_because == "memory")
        # Requests first: whether the death is held against the replica depends on what becomes of them.
        counts = self._dispatch.failover.died(pool, replica, event)
        replica.restarts.died(self._dispatch.now, event.jitter, counts=counts, device_failed=event.device_failed)
        # A restart helps a device that was busy for a while; one that is slow again would cost its peers for good.
        too_slow = replica.ending_because == "slow" and replica.times_slow >= self._limits.slow_times
        if too_slow or replica.restarts.exhausted():
            replica.move("give_up")
            replica.restarts.gave_up(self._dispatch.now)
            self._dispatch.emit(ev.Recovered(kind="circuit", replica=replica.index, count=1, reason=event.reason))
            self.check_pool(pool)

    def check_pool(self, pool: Pool) -> None:
        """Say so when every replica that it has in this phase was given up, and none is tried again.

        A run ends then, so that nobody waits for a pool that will not answer. Where circuits are tried again
        (`circuit_retry_s`, for a service) requests wait, for as long as their deadlines allow.
        """
        here = [replica for replica in pool.replicas if self._dispatch.residency.belongs(replica)]
        gone = all(replica.state == "failed" and replica.restarts.retry_at is None for replica in here)
        if here and gone and not pool.down:
            pool.down = True
            reasons = sorted({replica.restarts.last_reason for replica in here})
            starved = all(replica.memory.failed for replica in here)
            self._dispatch.emit(ev.PoolDown(pool=pool.index, reason="\n".join(reasons), out_of_memory=starved))

    def on_heartbeat(self, event: ev.HeartbeatArrived) -> None:
        replica = self._dispatch.replicas[event.replica]
        if event.incarnation != replica.incarnation:
            return
        if replica.answers:
            replica.saw(event.progress, event.executing, self._dispatch.now)
        # A load makes no progress that could be counted, and may take half an hour: it is enough that the host speaks.
        elif replica.state in ("starting", "waking"):
            replica.liveness.heard_at = self._dispatch.now

    def on_tick(self, event: ev.Tick) -> None:
        for pool in self._dispatch.pools:
            if pool.quarantine.groups:
                self._dispatch.dirty(pool)  # who was to try them may be overdue
            if self._dispatch.draining_until is None:
                for peers in pool.peers:
                    for replica, share in peers.slow_ones(self._dispatch.now):
                        self._eject(replica, share)
        for replica in self._dispatch.replicas:
            if replica.state == "waiting":
                # Between two phases memory belongs to what is about to load.
                if self._dispatch.now >= replica.restarts.start_at and not self._dispatch.residency.closing:
                    self._restart(replica)
                continue
            if replica.state == "failed":
                self._try_again(replica)
                continue
            deadline = replica.progress_deadline()
            if deadline is not None and self._dispatch.now >= deadline:
                if replica.state == "falling_asleep":
                    self._dispatch.residency.too_slow(replica)
                else:
                    self._kill_hung(replica)

    def _try_again(self, replica: Replica) -> None:
        """Half open: what broke it may have been fixed, or was not its own."""
        retry_at, residency = replica.restarts.retry_at, self._dispatch.residency
        pool = self._dispatch.pools[replica.shape.pool]
        loads = pool.opened and not pool.lazy and residency.belongs(replica) and not residency.closing
        if retry_at is not None and self._dispatch.now >= retry_at and loads and self._dispatch.draining_until is None:
            replica.restarts.tries_again()
            replica.times_slow = 0
            self._restart(replica)

    def _restart(self, replica: Replica) -> None:
        died, reason = replica.ending_because != "memory", replica.restarts.last_reason
        self.start(replica)
        if died and replica.state == "starting":
            self._dispatch.emit(ev.Recovered(kind="restart", replica=replica.index, count=1, reason=reason))

    def _kill_hung(self, replica: Replica) -> None:
        loads = replica.state in ("starting", "waking")
        doing = "loading" if loads else f"{len(replica.in_flight)} requests in flight"
        now, liveness = self._dispatch.now, replica.liveness
        reason = f"no progress for {now - liveness.progress_at:.0f} s ({doing})"
        if loads and liveness.heard_at is not None and now - liveness.progress_at < self._limits.load_timeout_s:
            reason = f"silent for {now - liveness.heard_at:.0f} s while loading"
        self._dispatch.emit(ev.Recovered(kind="hang", replica=replica.index, count=1, reason=reason))
        self.kill(replica, reason, because="hung", dump_stacks=True)

    def _eject(self, replica: Replica, share: float) -> None:
        """A restart may fix it; where it does not, the replica is given up."""
        replica.times_slow += 1
        reason = f"throughput is {share:.0%} of the median of its peers"
        self._dispatch.emit(
            ev.Recovered(kind="slow", replica=replica.index, count=max(1, round(100 * share)), reason=reason)
        )
        self.kill(replica, reason, because="slow")

    def touch(self, replica: Replica) -> None:
        """It will not serve for now: what was to come back from it will not, and nothing need be held back for it."""
        pool = self._dispatch.pools[replica.shape.pool]
        pool.recount(replica)
        self._dispatch.dirty(pool)

    def kill(self, replica: Replica, reason: str, *, because: Ending, dump_stacks: bool = False) -> None:
        replica.move("kill")
        replica.ending_because = because
        self.touch(replica)
        self.order_end(replica, reason, dump_stacks=dump_stacks)

    def order_end(self, replica: Replica, reason: str, *, dump_stacks: bool = False) -> None:
        self._dispatch.emit(
            ev.KillReplica(
                replica=replica.index, incarnation=replica.incarnation, reason=reason, dump_stacks=dump_stacks
            )
        )
