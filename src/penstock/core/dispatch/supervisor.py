"""The life of the replicas: started, served, lost, started again or given up. States are in `replica_states.py`.

What was in flight at an end is `failover.py`'s; which phase needs which replica is `residency.py`'s.
"""

from __future__ import annotations

from penstock.core import events as ev
from penstock.core.dispatch.failover import Failover
from penstock.core.dispatch.replica import Replica
from penstock.core.dispatch.residency import Residency
from penstock.core.dispatch.state import DispatchState


class Supervisor:
    def __init__(self, state: DispatchState, residency: Residency, failover: Failover) -> None:
        self._state, self._residency, self._failover = state, residency, failover
        self._limits = state.limits

    def on_replica_ready(self, replica: Replica, event: ev.ReplicaReady) -> None:
        # Events of a host come in whatever order its connection and its end leave them, so they are asked for, not
        # trusted: only what the dispatcher decides itself may raise.
        if not replica.can("ready"):
            return
        replica.move("ready")
        if replica.state != "ready":
            return  # the order to end crossed with it
        replica.became_ready(event.slots, event.kv_tokens, self._state.now, shared=event.shared)
        pool = self._state.pool_of(replica)
        pool.offer(replica)
        pool.recount(replica)
        self._state.dirty(pool)

    def on_replica_load_failed(self, replica: Replica, event: ev.ReplicaLoadFailed) -> None:
        if replica.ending_because == "memory":
            return
        # What it holds of its devices is unknown by now: only its end frees all of it.
        if replica.state == "waking":
            self._state.kill(replica, f"it did not wake up: {event.reason}", because="hung")  # and is loaded again
            return
        # A smaller start may fit; only the last rung is a failure to load.
        if event.out_of_memory and self._residency.lower(replica, event.reason):
            return
        if not replica.can("load_failed"):
            return
        replica.move("load_failed")
        if replica.state == "failed":
            # No circuit: an engine that says why it can't load will say so again.
            replica.restarts.last_reason, replica.memory.failed = event.reason, event.out_of_memory
            pool = self._state.pool_of(replica)
            self._state.dirty(pool)  # nothing need be held back for it any more
            self._state.check_pool(pool)

    def on_replica_lost(self, replica: Replica, event: ev.ReplicaLost) -> None:
        if not replica.can("lost"):
            return
        replica.move("lost")
        # It was given up when its load failed, and has only now ended: nothing was in flight.
        if replica.state == "failed":
            return
        pool = self._state.pool_of(replica)
        self._state.dirty(pool)
        replica.restarts.last_reason = event.reason
        # A restart would load a model on devices that its pool has given away.
        if not replica.wanted and replica.state == "waiting":
            replica.move("leave")  # it does not come back
        if replica.state == "off":  # it had to leave, or died asleep
            self._failover.requeue(pool, replica, event.reason)
            self._residency.left(replica)
            return
        # A rung lower is another configuration: its first start is no repetition of what came to nothing.
        replica.restarts.never_ready += not (replica.restarts.loaded or replica.ending_because == "memory")
        # Requests first: whether the death is held against the replica depends on what becomes of them.
        counts = self._failover.died(pool, replica, event)
        replica.restarts.died(self._state.now, event.jitter, counts=counts, device_failed=event.device_failed)
        # A restart helps a device that was busy for a while; one that is slow again would cost its peers for good.
        too_slow = replica.ending_because == "slow" and replica.times_slow >= self._limits.slow_times
        if too_slow or replica.restarts.exhausted():
            replica.move("give_up")
            replica.restarts.gave_up(self._state.now)
            self._state.emit(ev.Recovered(kind="circuit", replica=replica.index, count=1, reason=event.reason))
            self._state.check_pool(pool)

    def on_heartbeat(self, replica: Replica, event: ev.HeartbeatArrived) -> None:
        # Of an incarnation that is to end nothing is owed, so nothing of it may set a deadline.
        if replica.answers:
            replica.saw(event.progress, event.executing, self._state.now)
        # A load makes no progress that could be counted, and may take half an hour: it is enough that the host speaks.
        elif replica.state in ("starting", "waking"):
            replica.liveness.heard_at = self._state.now

    def on_tick(self, event: ev.Tick) -> None:
        for pool in self._state.pools:
            if pool.quarantine.groups:
                self._state.dirty(pool)  # who was to try them may be overdue
            if self._state.draining_until is None:
                for peers in pool.peers:
                    for replica, share in peers.slow_ones(self._state.now):
                        self._eject(replica, share)
        for replica in self._state.replicas:
            if replica.state == "waiting":
                # Between two phases memory belongs to what is about to load.
                if self._state.now >= replica.restarts.start_at and not self._residency.closing:
                    self._restart(replica)
                continue
            if replica.state == "failed":
                self._try_again(replica)
                continue
            deadline = replica.progress_deadline()
            if deadline is not None and self._state.now >= deadline:
                if replica.state == "falling_asleep":
                    self._residency.too_slow(replica)
                else:
                    self._kill_hung(replica)

    def _try_again(self, replica: Replica) -> None:
        """Half open: what broke it may have been fixed, or was not its own."""
        state, retry_at, pool = self._state, replica.restarts.retry_at, self._state.pool_of(replica)
        # Only where the plan loads it now: elsewhere it would take the memory of the phase that runs.
        loads = pool.opened and not pool.lazy and state.belongs(replica) and not self._residency.closing
        if retry_at is not None and state.now >= retry_at and loads and state.draining_until is None:
            # Slow or dead before, it is judged by what it does from here on.
            replica.restarts.tries_again()
            replica.times_slow = 0
            self._restart(replica)

    def _restart(self, replica: Replica) -> None:
        died, reason = replica.ending_because != "memory", replica.restarts.last_reason
        self._state.start(replica)
        if died and replica.state == "starting":
            self._state.emit(ev.Recovered(kind="restart", replica=replica.index, count=1, reason=reason))

    def _kill_hung(self, replica: Replica) -> None:
        loads = replica.state in ("starting", "waking")
        doing = "loading" if loads else f"{len(replica.in_flight)} requests in flight"
        now, liveness = self._state.now, replica.liveness
        reason = f"no progress for {now - liveness.progress_at:.0f} s ({doing})"
        if loads and liveness.heard_at is not None and now - liveness.progress_at < self._limits.load_timeout_s:
            reason = f"silent for {now - liveness.heard_at:.0f} s while loading"
        self._state.emit(ev.Recovered(kind="hang", replica=replica.index, count=1, reason=reason))
        self._state.kill(replica, reason, because="hung", dump_stacks=True)

    def _eject(self, replica: Replica, share: float) -> None:
        """A restart may fix it; where it does not, the replica is given up."""
        replica.times_slow += 1
        reason = f"throughput is {share:.0%} of the median of its peers"
        self._state.emit(
            ev.Recovered(kind="slow", replica=replica.index, count=max(1, round(100 * share)), reason=reason)
        )
        self._state.kill(replica, reason, because="slow")
