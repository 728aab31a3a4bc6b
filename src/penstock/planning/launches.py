"""From a plan's replicas to what the dispatcher knows of them, and how an executor starts them."""

from __future__ import annotations

from pathlib import Path

from penstock.core.shape import DispatchLimits, DispatchShape, ReplicaShape
from penstock.executors.base import Launch
from penstock.executors.logs import log_of
from penstock.planner.result import Rung
from penstock.planning.engine_config import lowered
from penstock.planning.run_plan import PlannedReplica, RunPlan
from penstock.protocol.messages import EngineConfig

__all__ = ["dispatch_shape", "launches_of"]


def dispatch_shape(planned: RunPlan) -> DispatchShape:
    kinds = list(dict.fromkeys(replica.peer_group for replica in planned.replicas if replica.peer_group))
    replicas = tuple(
        ReplicaShape(
            replica.id,
            replica.pool,
            replica.progress_timeout_s,
            rungs=len(_own_rungs(replica)),
            phases=replica.phases,
            peer_group=kinds.index(replica.peer_group) if replica.peer_group else -1,
        )
        for replica in planned.replicas
    )
    return DispatchShape(tuple(pool.name for pool in planned.pools), replicas, DispatchLimits())


def launches_of(replica: PlannedReplica, logs: Path) -> list[Launch]:
    """As planned, and on the rungs below."""
    below = (lowered(replica.config, rung) for rung in _own_rungs(replica))
    return [_launch(replica, config, logs) for config in (replica.config, *below)]


def _own_rungs(replica: PlannedReplica) -> list[Rung]:
    """Those that it can take itself; more tensor parallelism is another plan."""
    return [rung for rung in replica.rungs if rung.tensor_parallel is None]


def _launch(replica: PlannedReplica, config: EngineConfig, logs: Path) -> Launch:
    return Launch(
        replica=replica.id,
        config=config,
        log=log_of(logs, replica.id),
        work=replica.work,
        python=replica.python,
        env=replica.env,
        nodes=replica.nodes,
    )
