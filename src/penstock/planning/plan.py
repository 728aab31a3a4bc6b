"""`plan`: the placement of a pipeline on a cluster, or on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from penstock.errors import UsageError
from penstock.planner.cluster import CpuDomain, NodeFacts
from penstock.planner.demand import Sharing
from penstock.planner.model import ModelFacts
from penstock.planner.plan import make_plan
from penstock.planner.result import Plan
from penstock.planning.demands import ReadFacts, demand_of
from penstock.planning.machine import local_cluster
from penstock.planning.read.facts import read_model_facts
from penstock.spec.cluster import Cluster
from penstock.spec.identity import pools
from penstock.spec.pipeline import Pipeline, expect_pipeline
from penstock.spec.served import Workload

__all__ = ["cluster_nodes", "plan", "plan_on_nodes"]


def plan(pipeline: Pipeline, cluster: Cluster | None = None) -> Plan:
    """The placement of the models of a pipeline on a cluster, or on this machine (None), with reasons. Reads
    config.json and the headers of the weights; loads no model and needs no engine. Sizes are in bytes, lengths in
    tokens.

    Raises PlanError if a model's files can't be read, ConfigError for an invalid CUDA_VISIBLE_DEVICES or engine
    option. A plan that does not fit is not an error: `fits` is False, and `reason` has required and available memory.
    """
    pipeline = expect_pipeline(pipeline, "plan")
    if cluster is not None:
        if not isinstance(cluster, Cluster):
            raise UsageError(f"expected a Cluster, got {type(cluster).__name__}; make one with Cluster(nodes=[...])")
        return plan_on_nodes(pipeline, cluster_nodes(cluster), here=False)
    machine = local_cluster()
    made = plan_on_nodes(pipeline, machine.nodes, here=True)
    return replace(made, notes=(*made.notes, *machine.notes))


def plan_on_nodes(
    workload: Workload,
    nodes: Sequence[NodeFacts],
    *,
    here: bool,
    read: ReadFacts = read_model_facts,
    phases: Sequence[tuple[str, ...]] | None = None,
) -> Plan:
    """The plan on these nodes.

    here    on this machine, so that what is installed decides on engines
    phases  names of the pools that are loaded together, where that is settled; None: the plan decides
    """
    resources = workload.resources
    nodes = [_capped(node, resources.device_memory_gb) for node in nodes]
    pool_of = {name: pool.name for pool in pools(workload) for name in pool.names}
    asked = [node.step.model_name for node in workload.order()] if workload.steps else list(workload.models)
    uses = [pool_of[name] for name in asked if name is not None]
    on_gpus = any(node.devices for node in nodes)
    known: dict[tuple[str, str | None], ModelFacts] = {}

    def read_once(ref: str, revision: str | None) -> ModelFacts:
        if (ref, revision) not in known:
            known[ref, revision] = read(ref, revision)
        return known[ref, revision]

    demands = [demand_of(pool, read_once, on_gpus=on_gpus, here=here) for pool in pools(workload) if pool.name in uses]
    sharing = Sharing(resources.gpu_allocation_strategy, resources.reserve.per_node, resources.load_strategy)
    made = make_plan(demands, nodes, sharing, uses, phases)
    idle = sorted(set(pool_of.values()) - set(uses))
    notes = tuple(f"no step uses the model '{name}': it is not loaded" for name in idle)
    return replace(made, notes=(*made.notes, *notes))


def _capped(node: NodeFacts, device_memory_gb: float | None) -> NodeFacts:
    """The node with no more memory on each device, or in each domain of cores, than may be used."""
    if device_memory_gb is None:
        return node
    most = round(device_memory_gb * 10**9)
    domains = tuple(CpuDomain(domain.cores, min(domain.memory_bytes, most)) for domain in node.domains)
    return replace(node, device_memory_bytes=min(node.device_memory_bytes, most), domains=domains)


def cluster_nodes(cluster: Cluster) -> tuple[NodeFacts, ...]:
    """The nodes of a cluster file, each by itself."""
    return tuple(
        NodeFacts(
            name=name,
            devices=node.devices,
            device_memory_bytes=round((node.device_memory_gb or 0) * 10**9),
            link=node.link,
            cpus=node.cpus or 0,
            used=node.used,
            device_name=node.device or "",
            domains=_domains(node.cpus, node.memory_gb),
        )
        for node in cluster.nodes
        for name in node.names
    )


def _domains(cpus: int | None, memory_gb: float | None) -> tuple[CpuDomain, ...]:
    if not cpus or not memory_gb:
        return ()
    return (CpuDomain(tuple(range(cpus)), round(memory_gb * 10**9)),)
