"""What all parts of the dispatcher share: replicas, pools and requests, and what several of them do to these.

    dispatch.py      requests and answers
    supervisor.py    replicas are ready, are lost, are restarted or given up
    failover.py      what becomes of the requests of a replica that is lost
    residency.py     phases: which pools are loaded
    membership.py    replicas are added and removed

Each part imports this and none imports `dispatch.py`, which wires them.
"""

from __future__ import annotations

from penstock.core import events as ev
from penstock.core.dispatch.lanes import Request
from penstock.core.dispatch.pool import Pool
from penstock.core.dispatch.replica import Replica
from penstock.core.dispatch.replica_states import Ending
from penstock.core.machine import StateMachine
from penstock.core.shape import DispatchShape


class DispatchState(StateMachine):
    """requests        all that were submitted and have not ended, wherever they are
    phase           the one whose pools are open
    draining_until  once the run is to stop: when it ends whatever is in flight
    """

    name = "dispatch"

    def __init__(self, shape: DispatchShape) -> None:
        super().__init__()
        self.shape = shape
        self.limits = shape.limits
        self.replicas = [
            Replica(index, replica, shape.limits, self.broken) for index, replica in enumerate(shape.replicas)
        ]
        self.pools = [
            Pool(index, name, [r for r in self.replicas if r.shape.pool == index])
            for index, name in enumerate(shape.pools)
        ]
        self.requests: dict[int, Request] = {}
        self.phase = 0
        self.draining_until: float | None = None
        self._dirty: dict[int, Pool] = {}

    def pool_of(self, replica: Replica) -> Pool:
        return self.pools[replica.shape.pool]

    def belongs(self, replica: Replica) -> bool:
        """Whether the plan loads the replica in this phase."""
        return replica.wanted and (not replica.shape.phases or self.phase in replica.shape.phases)

    def dirty(self, pool: Pool) -> None:
        """Something has changed for what waits in the pool: decide again at the end of this call."""
        self._dirty[pool.index] = pool

    def touch(self, replica: Replica) -> None:
        """It will not serve for now: what was to come back from it will not, and nothing need be held back for it."""
        pool = self.pool_of(replica)
        pool.recount(replica)
        self.dirty(pool)

    # ------------------------------------------------------------ requests

    def may_run_again(self, request: Request) -> bool:
        """Not once a part of its answer was sent: a second run could say something else behind the same beginning."""
        return not request.begun

    def fail(self, ends: ev.FailRequests) -> None:
        """These requests end without a result."""
        for task in ends.tasks:
            del self.requests[task]
        if ends.tasks:
            self.emit(ends)

    # ------------------------------------------------------------ orders to replicas

    def start(self, replica: Replica) -> None:
        """Load a new incarnation; not once the run is to stop."""
        # A load takes minutes, and the replica would be given nothing.
        if self.draining_until is not None:
            return
        replica.move("start")
        replica.incarnation += 1
        # Why the incarnation before ended says nothing of this one.
        replica.restarts.loaded, replica.ending_because = False, ""
        replica.loads(self.now)
        memory = replica.memory
        self.emit(
            ev.StartReplica(
                replica=replica.index, incarnation=replica.incarnation, rung=memory.rung, share=memory.share
            )
        )

    def wake(self, replica: Replica) -> None:
        replica.move("wake")
        replica.loads(self.now)
        self.emit(ev.WakeReplica(replica=replica.index, incarnation=replica.incarnation))

    def kill(self, replica: Replica, reason: str, *, because: Ending, dump_stacks: bool = False) -> None:
        """End the incarnation; the replica starts again."""
        # The move first: where the table has none, no order may reach a host that is about other things.
        replica.move("kill")
        replica.ending_because = because
        self.touch(replica)
        self.order_end(replica, reason, dump_stacks=dump_stacks)

    def order_end(self, replica: Replica, reason: str, *, dump_stacks: bool = False) -> None:
        self.emit(
            ev.KillReplica(
                replica=replica.index, incarnation=replica.incarnation, reason=reason, dump_stacks=dump_stacks
            )
        )

    def check_pool(self, pool: Pool) -> None:
        """Say so when every replica that it has in this phase was given up, and none is tried again.

        A run ends then, so that nobody waits for a pool that will not answer. Where circuits are tried again
        (`circuit_retry_s`, for a service) requests wait, for as long as their deadlines allow.
        """
        here = [replica for replica in pool.replicas if self.belongs(replica)]
        gone = all(replica.state == "failed" and replica.restarts.retry_at is None for replica in here)
        # all() of nothing holds: a pool that has no replica in this phase is not down.
        if here and gone and not pool.down:
            pool.down = True
            reasons = sorted({replica.restarts.last_reason for replica in here})
            starved = all(replica.memory.failed for replica in here)
            self.emit(ev.PoolDown(pool=pool.index, reason="\n".join(reasons), out_of_memory=starved))


def add_failure(ends: ev.FailRequests, request: Request, code: str, message: str = "", index: int = -1) -> None:
    """`request` ends with `code`. index: of the answer that says so; -1: the dispatcher's `message` does."""
    ends.tasks.append(request.task)
    ends.codes.append(code)
    ends.messages.append(message)
    ends.indexes.append(index)
    ends.attempts.append(request.attempt)
