"""What a run starts and where: the plan of `planning/`, turned into replicas that an executor can launch, and into
phases with their steps."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from penstock.engine_info import info_of
from penstock.errors import PlanError
from penstock.executors import binding
from penstock.executors.leases import DeviceLeases, LeaseTaken
from penstock.planner.cluster import NodeFacts
from penstock.planner.result import ModelPlan, Plan, ReplicaPlan, Rung
from penstock.planning.demands import check_launchable
from penstock.planning.engine_config import engine_config
from penstock.planning.machine import local_cluster
from penstock.planning.phases import PhasePlan, cut_steps, phases_of, pools_by_phase
from penstock.planning.plan import plan_on_nodes
from penstock.protocol.messages import EngineConfig, PythonWork
from penstock.spec.functions import FunctionRef
from penstock.spec.identity import ModelPool, pools
from penstock.spec.pipeline import Pipeline
from penstock.spec.served import Workload
from penstock.spec.steps import PythonStep

PYTHON_POOL = "python"
STUCK_S = 10.0  # over a call's own limit: a call that ignores it is ended with its worker
LEASE_ATTEMPTS = 5  # when other runs take devices between a plan and its leases
MAX_PYTHON_WORKERS = 4  # of the steps that name none: functions are seldom what a pipeline waits for


@dataclass(frozen=True)
class PlannedReplica:
    """One replica: its id, its pool (index), devices as NODE/gpu:N or NODE/cpu:N, and how its host is started.

    rungs      what it tries when it runs out of memory while it starts
    kv_tokens  as planned; 0 where the plan does not know
    phases     indexes of the phases in which it is loaded
    peer_group replicas with equal text are expected to have equal throughput; empty: compared with none
    """

    id: str
    pool: int
    devices: tuple[str, ...]
    config: EngineConfig
    env: dict[str, str]
    progress_timeout_s: float | None = None
    python: str | None = None
    work: PythonWork | None = None
    rungs: tuple[Rung, ...] = ()
    kv_tokens: int = 0
    phases: tuple[int, ...] = (0,)
    nodes: tuple[str, ...] = ()
    peer_group: str = ""


@dataclass(frozen=True)
class PoolPlan:
    """A pool and the steps (by index) whose requests it takes. kind: model | python."""

    name: str
    names: tuple[str, ...]
    kind: str
    steps: tuple[int, ...]


@dataclass(frozen=True)
class RunPlan:
    """pools and replicas refer to each other by index. phases: in order, together they cover all steps."""

    pools: tuple[PoolPlan, ...]
    replicas: tuple[PlannedReplica, ...]
    pool_of_step: dict[int, int]
    phases: tuple[PhasePlan, ...] = ()
    by_value: dict[int, Any] = field(default_factory=dict)  # step -> function that workers can't import
    notes: tuple[str, ...] = ()

    @property
    def cut(self) -> tuple[int, ...]:
        """The steps at which phases end."""
        return tuple(phase.end for phase in self.phases)


def plan_here(workload: Workload, leases: DeviceLeases, holder: str, cut: Sequence[int] = ()) -> RunPlan:
    """The plan on this machine, with its GPUs held by `leases` in the name of `holder`. Raises as `plan` does."""
    leases.release()
    for attempt in range(LEASE_ATTEMPTS):
        machine = local_cluster(leases=leases)
        made = plan(workload, machine.nodes, cut, machine.notes)
        tokens = {device.rpartition("/gpu:")[2] for replica in made.replicas for device in replica.config.devices}
        try:
            leases.take(sorted(gpu.uuid for gpu in binding.gpus() if gpu.token in tokens) if tokens else (), holder)
        except LeaseTaken:
            if attempt == LEASE_ATTEMPTS - 1:
                raise
            continue  # another run was quicker: plan with what it has left
        return made
    raise AssertionError("the last attempt returns or raises")


def plan(workload: Workload, nodes: Sequence[NodeFacts], cut: Sequence[int] = (), notes: Sequence[str] = ()) -> RunPlan:
    """Place every replica that is needed. Reads the headers of models, loads nothing.

    cut    the steps at which phases end, where an earlier start of the run has settled it
    notes  what is worth knowing of the nodes

    Raises PlanError where the models do not fit, MissingDependency or ConfigError.
    """
    model_pools, functions = pools(workload), _functions(workload)
    placed = _pool_plans(workload, model_pools, functions)
    pool_of_step = {step: index for index, pool in enumerate(placed) for step in pool.steps}
    # Where there are steps, a model that none of them uses is not loaded.
    loaded = [index for index in range(len(model_pools)) if placed[index].steps or not workload.steps]
    for index in loaded:
        check_launchable(model_pools[index].model)
    named = [pool.name if pool.kind == "model" else "" for pool in placed]
    uses = [named[pool_of_step[index]] if index in pool_of_step else "" for index in range(len(workload.steps))]
    made = _place(workload, nodes, pools_by_phase(uses, cut) if cut else None, tuple(notes))
    if isinstance(workload, Pipeline):
        phases = phases_of(workload, pool_of_step, cut or cut_steps(uses, made.phases))
    else:
        phases = (PhasePlan(0, 0, tuple(loaded)),)
    replicas: list[PlannedReplica] = []
    for index in loaded:
        pool, sleeps = model_pools[index], any(index in phase.sleep for phase in phases)
        replicas += _replicas(pool, index, made.models[pool.name], nodes, sleeps=sleeps)
    replicas += _workers(workload, functions, len(model_pools), tuple(range(len(phases))))
    return RunPlan(placed, tuple(replicas), pool_of_step, phases, _by_value(functions), made.notes)


def _by_value(functions: dict[int, PythonStep]) -> dict[int, Any]:
    return {index: _ref(step).resolve() for index, step in functions.items() if not _ref(step).is_importable}


def _place(
    workload: Workload,
    nodes: Sequence[NodeFacts],
    phases: Sequence[tuple[str, ...]] | None,
    notes: tuple[str, ...],
) -> Plan:
    made = plan_on_nodes(workload, nodes, here=True, phases=phases)
    if made.fits:
        return replace(made, notes=(*made.notes, *notes))
    would = "".join(f"\n  {line}" for line in made.alternatives)
    raise PlanError(
        (made.reason or "the models do not fit")
        + (f"\nwhat would fit:{would}" if would else "")
        + "".join(f"\nnote: {note}" for note in notes)
    )


def _functions(workload: Workload) -> dict[int, PythonStep]:
    return {
        node.index: node.step
        for node in workload.order()
        if isinstance(node.step, PythonStep) and node.step.function is not None
    }


def _pool_plans(
    workload: Workload, model_pools: Sequence[ModelPool], functions: Mapping[int, PythonStep]
) -> tuple[PoolPlan, ...]:
    nodes = workload.order()
    made = [
        PoolPlan(
            pool.name,
            pool.names,
            "model",
            tuple(node.index for node in nodes if node.step.model_name in pool.names),
        )
        for pool in model_pools
    ]
    if functions:
        made.append(PoolPlan(_python_pool(workload), (), "python", tuple(functions)))
    return tuple(made)


def _replicas(
    pool: ModelPool, index: int, planned: ModelPlan, nodes: Sequence[NodeFacts], *, sleeps: bool
) -> list[PlannedReplica]:
    made = []
    for replica in planned.replicas:
        _refuse_several_nodes(replica)
        config = engine_config(pool.model, planned, replica, sleeps=sleeps)
        made.append(
            PlannedReplica(
                id=replica.id,
                pool=index,
                devices=replica.devices,
                config=config,
                env=binding.environment_for(config),
                progress_timeout_s=pool.model.progress_timeout_s,
                python=pool.model.python,
                rungs=planned.rungs,
                kv_tokens=replica.kv_tokens,
                phases=replica.phases,
                nodes=replica.nodes,
                peer_group="" if info_of(planned.engine).remote else _peer_group(replica, nodes),
            )
        )
    return made


def _peer_group(replica: ReplicaPlan, nodes: Sequence[NodeFacts]) -> str:
    """Replicas of a pool that are to be equally fast. Where a replica may start again on another node (Ray places it)
    only devices tell, and only if there is one kind of them; cores do not."""
    kinds = {(node.device_name, node.device_memory_bytes, node.link) for node in nodes if node.devices}
    if len({node.name for node in nodes}) > 1 and not (replica.device_kind and len(kinds) == 1):
        return ""
    kind = replica.device_kind or "CPU"
    return f"{len(replica.devices)} x {kind}, tp={replica.tensor_parallel} pp={replica.pipeline_parallel}"


def _refuse_several_nodes(replica: ReplicaPlan) -> None:
    """Executors start a replica in one node. Its ranks would have to find each other through the engine's own means."""
    if len(replica.nodes) > 1:
        shape = f"tp={replica.tensor_parallel} pp={replica.pipeline_parallel}"
        raise PlanError(
            f"{replica.id} would span the nodes {', '.join(replica.nodes)}: {shape} takes {len(replica.devices)} "
            f"devices, and no node has that many free. Pipeline stages across nodes can be planned (`penstock plan`), "
            "but not started yet: use a smaller dtype, a quantization or larger nodes"
        )


def _workers(
    workload: Workload, functions: dict[int, PythonStep], index: int, phases: tuple[int, ...]
) -> list[PlannedReplica]:
    """Workers of the Python steps; each can run every function, in every phase."""
    if not functions:
        return []
    asked = [step.workers for step in functions.values() if isinstance(step.workers, int)]
    cores = len(os.sched_getaffinity(0))
    count = max(asked) if asked else max(1, min(MAX_PYTHON_WORKERS, cores // 2))
    names = tuple(_name(functions.get(place)) for place in range(len(workload.steps)))
    timeout_s = max(step.timeout_s for step in functions.values())
    work = PythonWork(names, timeout_s)
    node = socket.gethostname()
    return [
        PlannedReplica(
            id=f"{_python_pool(workload)}-{number}",
            pool=index,
            devices=(f"{node}/cpu:{number % cores}",),
            config=EngineConfig(engine="python", ref="python", task="python"),
            env={},
            work=work,
            progress_timeout_s=timeout_s + STUCK_S,
            phases=phases,
        )
        for number in range(count)
    ]


def _python_pool(workload: Workload) -> str:
    """What the workers of Python steps are called: a model may have the name already."""
    name = PYTHON_POOL
    while name in workload.models:
        name += "-steps"
    return name


def _name(step: PythonStep | None) -> str:
    return "" if step is None else _ref(step).name


def _ref(step: PythonStep) -> FunctionRef:
    assert step.function is not None
    return step.function
