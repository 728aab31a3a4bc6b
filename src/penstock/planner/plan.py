"""Pools and machines to a plan: the one function that others call is `make_plan`."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from penstock.planner.alternatives import alternatives
from penstock.planner.cluster import NodeFacts
from penstock.planner.demand import PoolDemand, Sharing
from penstock.planner.kv import model_bytes_per_token
from penstock.planner.ladder import ladder
from penstock.planner.on_cpus import OnCpus
from penstock.planner.on_devices import OnDevices
from penstock.planner.phases import cut
from penstock.planner.result import ModelPlan, Plan, ReplicaPlan

__all__ = ["make_plan"]

TOGETHER = (
    "the models {} do not fit together, which load_strategy: together requires; without it they are loaded in {} phases"
)
SETTLED = (
    "the models {} were loaded together when this run started, and do not fit together here; continue on "
    "devices like the original ones, or start over in another output folder"
)


def make_plan(
    demands: Sequence[PoolDemand],
    nodes: Sequence[NodeFacts],
    sharing: Sharing | None = None,
    uses: Sequence[str] | None = None,
    phases: Sequence[tuple[str, ...]] | None = None,
) -> Plan:
    """Where the replicas of all pools go, and why; where they do not fit, what would.

    uses: names of pools in the order in which steps use them, with repetitions; None: the order of `demands`
    phases: which pools are loaded together, where that is settled
    """
    used = tuple(uses) if uses is not None else tuple(demand.name for demand in demands)
    plan = _plan(demands, nodes, sharing or Sharing(), used, phases)
    if plan.fits:
        return plan

    def again(changed: Sequence[PoolDemand], machines: Sequence[NodeFacts], shared: Sharing) -> Plan:
        names = {demand.name for demand in changed}
        return _plan(changed, machines, shared, tuple(name for name in used if name in names))

    return replace(plan, alternatives=tuple(alternatives(demands, nodes, sharing or Sharing(), again)))


def _plan(
    demands: Sequence[PoolDemand],
    nodes: Sequence[NodeFacts],
    sharing: Sharing,
    uses: tuple[str, ...],
    settled: Sequence[tuple[str, ...]] | None = None,
) -> Plan:
    has_devices = any(node.devices for node in nodes)
    needy = [
        demand
        for demand in demands
        if demand.needs_devices and (has_devices or demand.facts is not None) and demand.name in uses
    ]
    names = {demand.name for demand in needy}
    hardware = OnDevices(needy, nodes, sharing) if has_devices else OnCpus(needy, nodes)

    def together(pools: tuple[str, ...]) -> bool:
        if settled is None and sharing.load == "phases" and len(pools) > 1:
            return False
        return hardware.together([name for name in pools if name in names])

    phases = cut(uses, together) if settled is None else tuple(settled)
    if phases is None:
        return _refused(demands, hardware)
    if settled is not None and (apart := [pools for pools in settled if not together(pools)]):
        return _refused(demands, hardware, *(SETTLED.format(", ".join(pools)) for pools in apart))
    if settled is None and sharing.load == "together" and len(phases) > 1:
        return _refused(demands, hardware, TOGETHER.format(", ".join(dict.fromkeys(uses)), len(phases)))
    replicas = _replicas(demands, nodes, hardware, phases, names)
    models = {
        demand.name: _with_rungs(_model(demand, replicas[demand.name], hardware, demand in needy), demand, nodes)
        for demand in demands
    }
    return Plan(fits=True, models=models, phases=phases, notes=_notes(phases, nodes, sharing.load))


Hardware = OnDevices | OnCpus


def _refused(demands: Sequence[PoolDemand], hardware: Hardware, *more: str) -> Plan:
    reasons = [reason for demand in hardware.demands if (reason := hardware.why_not(demand)) is not None]
    reasons += more
    models = {demand.name: _model(demand, [], hardware, demand in hardware.demands) for demand in demands}
    return Plan(fits=False, reason="\n".join(reasons), models=models)


def _replicas(
    demands: Sequence[PoolDemand],
    nodes: Sequence[NodeFacts],
    hardware: Hardware,
    phases: Sequence[tuple[str, ...]],
    needy: set[str],
) -> dict[str, list[ReplicaPlan]]:
    """Of every pool in all phases, numbered. A replica that is the same in two phases is one."""
    found: dict[str, list[ReplicaPlan]] = {demand.name: [] for demand in demands}
    by_name = {demand.name: demand for demand in demands}
    for phase, pools in enumerate(phases):
        here = hardware.replicas([name for name in pools if name in needy], phase)
        for name in pools:
            given = here[name] if name in needy else _without_devices(by_name[name], nodes, phase)
            found[name] += given
    return {
        name: [replace(replica, id=f"{name}-{number}") for number, replica in enumerate(_merged(replicas))]
        for name, replicas in found.items()
    }


def _merged(replicas: list[ReplicaPlan]) -> list[ReplicaPlan]:
    """Replicas of all phases, those that are the same in several as one."""
    merged: dict[ReplicaPlan, tuple[int, ...]] = {}
    last: list[ReplicaPlan] = []
    for replica in replicas:
        alike = replace(replica, phases=())
        if replica.phases[0] in merged.get(alike, ()):
            last.append(replica)  # two of one phase on no device of their own
        else:
            merged[alike] = (*merged.get(alike, ()), *replica.phases)
    return [*(replace(alike, phases=phases) for alike, phases in merged.items()), *last]


def _without_devices(demand: PoolDemand, nodes: Sequence[NodeFacts], phase: int) -> list[ReplicaPlan]:
    """Replicas that take no device: on the cores of the first node, one after another."""
    node = nodes[0]
    cores = max(node.cpus, 1)
    return [
        ReplicaPlan(
            id="",
            nodes=(node.name,),
            devices=(f"{node.name}/cpu:{number % cores}",),
            tensor_parallel=demand.tensor_parallel or 1,
            pipeline_parallel=demand.pipeline_parallel or 1,
            max_num_seqs=demand.slots,
            phases=(phase,),
        )
        for number in range(demand.replicas or 1)
    ]


def _model(demand: PoolDemand, replicas: list[ReplicaPlan], hardware: Hardware, needy: bool) -> ModelPlan:
    facts = demand.facts
    if facts is None:
        return ModelPlan(
            names=demand.names, max_model_len=demand.max_model_len, engine=demand.engine, replicas=tuple(replicas)
        )
    length, explanation = hardware.context(demand, replicas) if needy else (demand.max_model_len, ())
    element = demand.kv_dtype_bytes or demand.dtype_bytes
    return ModelPlan(
        names=demand.names,
        ref=facts.ref,
        weights_bytes=facts.weights_bytes(demand.dtype, demand.quantization),
        kv_bytes_per_token=model_bytes_per_token(facts, element) if demand.rules.has_kv else 0,
        dtype=demand.dtype,
        quantization=demand.quantization or facts.quantization,
        max_model_len=length,
        engine=demand.engine,
        confidence=facts.confidence,
        replicas=tuple(replicas),
        rejected=hardware.rejected(demand, replicas) if needy else (),
        explanation=(*explanation, *facts.doubts),
    )


def _with_rungs(model: ModelPlan, demand: PoolDemand, nodes: Sequence[NodeFacts]) -> ModelPlan:
    """With what its replicas try when they run out of memory while they start."""
    if not model.replicas or demand.facts is None:
        return model
    first = model.replicas[0]
    free = sum(node.devices - len(node.used) for node in nodes if node.name == first.nodes[0])
    return replace(model, rungs=tuple(ladder(demand, first, model.max_model_len, free)))


def _notes(phases: Sequence[tuple[str, ...]], nodes: Sequence[NodeFacts], load: str) -> tuple[str, ...]:
    notes = []
    if len(phases) > 1:
        cause = "load_strategy: phases" if load == "phases" else "the models do not all fit together"
        notes.append(f"{cause}: they are loaded one phase after another")
    used = [f"{node.name} {', '.join(map(str, node.used))}" for node in nodes if node.used]
    if used:
        more = f" and {len(used) - 5} nodes more" if len(used) > 5 else ""
        notes.append(f"devices in use by other processes, not used: {'; '.join(used[:5])}{more}")
    return tuple(notes)
