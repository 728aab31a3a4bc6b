"""Changes that would make a plan fit: each is tried with the planner itself, smallest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, takewhile

from msgspec.structs import replace

from penstock.planner.cluster import NodeFacts
from penstock.planner.demand import GIB, PoolDemand, Sharing
from penstock.planner.result import Plan
from penstock.units import gigabytes, noun

__all__ = ["alternatives"]

MAX_ALTERNATIVES = 6
SHORTEST_TOKENS = 512
# Memory of devices that can be had or rented, in GB: 24 (L4, 4090), 32, 40 and 80 (A100), 48, 96, 141 (H200), 192, 288.
USUAL_MEMORIES_GB = (16, 24, 32, 40, 48, 80, 96, 141, 192, 288)
MAX_DEVICES = 64
MAX_MACHINE_GB = 1024

PlanOf = Callable[[Sequence[PoolDemand], Sequence[NodeFacts], Sharing], Plan]
Change = tuple[str, PoolDemand]


def alternatives(
    demands: Sequence[PoolDemand], nodes: Sequence[NodeFacts], sharing: Sharing, plan_of: PlanOf
) -> list[str]:
    """Sentences, each a change under which everything fits; of the changes to one model, only what suffices alone."""
    bad = [demand for demand in demands if not _alone(demand, nodes, sharing, plan_of).fits]
    found: list[str] = []
    if len(bad) == 1:
        on_cpus = not any(node.devices for node in nodes)
        for changes in (*([_smaller_cache(bad[0])] if on_cpus else []), *_changes(bad[0])):
            plans = ((change, one, _alone(one, nodes, sharing, plan_of)) for change, one in changes)
            found += [_describe(change, one, plan) for change, one, plan in plans if plan.fits][:1]
    if sharing.reserve_per_node and _all(demands, nodes, Sharing(sharing.strategy), plan_of):
        found.append("resources: {reserve: {per_node: 0}}")
    found += _more_devices(demands, nodes, sharing, plan_of)
    return found[:MAX_ALTERNATIVES]


def _alone(demand: PoolDemand, nodes: Sequence[NodeFacts], sharing: Sharing, plan_of: PlanOf) -> Plan:
    return plan_of([demand], nodes, sharing)


def _all(demands: Sequence[PoolDemand], nodes: Sequence[NodeFacts], sharing: Sharing, plan_of: PlanOf) -> bool:
    return plan_of(demands, nodes, sharing).fits


def _changes(demand: PoolDemand) -> Iterator[list[Change]]:
    """Changes to one model, nearest to what was asked for first; the first of each list that fits is shown."""
    if demand.replicas is not None and demand.replicas > 1:
        yield [("replicas: auto", replace(demand, replicas=None))]
    if demand.ranks > 1:
        freed = replace(demand, tensor_parallel=None, pipeline_parallel=None)
        yield [("tensor_parallel: auto, pipeline_parallel: auto", freed)]
    if demand.facts is None:
        return
    yield _shorter(demand)
    if demand.kv_bytes is not None:
        yield [("without kv_cache_gb", replace(demand, kv_bytes=None))]
    if demand.dtype == "float32":
        yield [("dtype: bfloat16", replace(demand, dtype="bfloat16"))]
    if demand.facts.quantization is None and demand.quantization is None:
        for scheme in demand.rules.quantizes:
            yield [(f"quantization: {scheme}", replace(demand, quantization=scheme))]


def _shorter(demand: PoolDemand) -> list[Change]:
    """The longest context that there is room for, where one was given; else half of what auto asks for, a quarter."""
    assert demand.facts is not None
    changes = [] if demand.max_model_len is None else [("max_model_len", replace(demand, max_model_len=None))]
    length = min(demand.max_model_len or 8192, 8192, demand.facts.max_position_embeddings) // 2
    while length >= SHORTEST_TOKENS:
        changes.append(("max_model_len", replace(demand, max_model_len=length)))
        length //= 2
    return changes


def _smaller_cache(demand: PoolDemand) -> list[Change]:
    """On the CPU the KV cache has a given size: the largest one that fits."""
    now = demand.rules.cpu_kv_bytes if demand.kv_bytes is None else demand.kv_bytes
    unit, sizes = (GIB, (4, 2, 1)) if demand.rules.cpu_kv_in_gib else (10**9, (4, 2, 1, 0.5, 0.25))
    return [
        (f"engine_options: {{kv_cache_gb: {size}}}", replace(demand, kv_bytes=int(size * unit)))
        for size in sizes
        if size * unit < now
    ]


def _describe(change: str, demand: PoolDemand, plan: Plan) -> str:
    """A change and what it comes to: weights, and the layout that then fits."""
    model = plan.models[demand.name]
    if change == "max_model_len":
        change = f"max_model_len: {model.max_model_len}"
    first = model.replicas[0]
    layout = f"{noun(len(model.replicas), 'replica')} of tp={first.tensor_parallel} pp={first.pipeline_parallel}"
    weights = f", weights {gigabytes(model.weights_bytes)}" if model.weights_bytes else ""
    return f"{demand.name}: {change} ({layout}{weights})"


def _more_devices(
    demands: Sequence[PoolDemand], nodes: Sequence[NodeFacts], sharing: Sharing, plan_of: PlanOf
) -> Iterator[str]:
    """More nodes like the largest, larger nodes, and larger devices: the least of each that does."""
    with_devices = [node for node in nodes if node.devices]
    if not with_devices:
        yield from _more_memory(demands, nodes, sharing, plan_of)
        return
    largest = max(with_devices, key=lambda node: (node.device_memory_bytes, node.devices))
    memory = gigabytes(largest.device_memory_bytes)
    for size in _doubling(largest.devices):
        larger = replace(largest, devices=size, used=(), device_ids=())
        if size > largest.devices and _all(demands, [larger], sharing, plan_of):
            yield f"{noun(size, 'device')} of {memory} in one node"
            break
    for more in _doubling(1):
        if more * largest.devices > MAX_DEVICES:
            break
        added = [replace(largest, name=f"more-{number}", used=(), device_ids=()) for number in range(more)]
        if _all(demands, [*nodes, *added], sharing, plan_of):
            yield f"{noun(more, 'node')} more of {largest.devices} x {memory}"
            break
    for gigabyte in USUAL_MEMORIES_GB:
        larger_devices = [_with_memory(node, gigabyte) for node in nodes]
        if gigabyte * 10**9 > largest.device_memory_bytes and _all(demands, larger_devices, sharing, plan_of):
            yield f"devices of {gigabyte} GB in place of {memory}"
            break


def _more_memory(
    demands: Sequence[PoolDemand], nodes: Sequence[NodeFacts], sharing: Sharing, plan_of: PlanOf
) -> Iterator[str]:
    """Of machines without devices: the least memory that does, by the usual sizes of machines."""
    for gigabyte in takewhile(lambda size: size <= MAX_MACHINE_GB, (2**power for power in count(2))):
        larger = [_with_domains(node, gigabyte * 10**9) for node in nodes]
        if larger != list(nodes) and _all(demands, larger, sharing, plan_of):
            yield f"{gigabyte} GB of memory for the models of a machine"
            break


def _with_domains(node: NodeFacts, memory_bytes: int) -> NodeFacts:
    grown = (replace(domain, memory_bytes=max(domain.memory_bytes, memory_bytes)) for domain in node.domains)
    return replace(node, domains=tuple(grown))


def _with_memory(node: NodeFacts, gigabyte: int) -> NodeFacts:
    return replace(node, device_memory_bytes=gigabyte * 10**9, device_name="") if node.devices else node


def _doubling(start: int) -> Iterator[int]:
    while start <= MAX_DEVICES:
        yield start
        start *= 2
