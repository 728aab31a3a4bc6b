"""The layouts of one model on devices of one kind, best first, and for each of the others why it is not taken.

throughput   a model that fits one device is copied, not divided
             else tensor parallel inside a node with fast links, pipeline stages where links are slow
             else stages across nodes, each stage inside one node, of as few nodes as can be
             and among layouts of the same sort the one whose devices make most tokens
latency      what brings one request its tokens soonest, inside one node where it can be
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from penstock.planner.cluster import Kind
from penstock.planner.demand import PoolDemand
from penstock.planner.fit import Fit, fit_on
from penstock.planner.layout import ParallelLayout
from penstock.planner.rate import REQUEST_TOKENS, decode_rate, latency_cost
from penstock.units import noun

__all__ = ["Candidate", "DeviceSupply", "candidates", "layouts", "shape_reason"]

MAX_STAGES = 16  # that are looked at; deeper pipelines are taken where they are asked for
ROOMY_REQUESTS = 16  # of REQUEST_TOKENS at once; with fewer, a step reads all weights for next to nothing


class DeviceSupply(Struct, frozen=True):
    """What there is of one kind. nodes: (free devices, nodes that have so many)."""

    kind: Kind
    nodes: tuple[tuple[int, int], ...]

    @property
    def largest_node(self) -> int:
        return max(free for free, _ in self.nodes)

    @property
    def devices(self) -> int:
        return sum(free * count for free, count in self.nodes)

    def used_share(self, layout: ParallelLayout) -> float:
        """Share of the devices that replicas of one layout occupy when there are as many as fit."""
        groups = sum(free // layout.tensor_parallel * count for free, count in self.nodes)
        return groups // layout.pipeline_parallel * layout.devices / self.devices


class Candidate(Struct, frozen=True):
    """A layout that fits. Lower sorts are taken before higher ones, whatever the rate.

    cramped  the KV cache holds a few requests only, or the engine's own limits of a batch leave none
    rate     tokens per device, idle ones included; for latency the inverse of the time of a token
    """

    fit: Fit
    kind: Kind
    cramped: bool
    sort: int
    rate: float

    @property
    def layout(self) -> ParallelLayout:
        return self.fit.layout


def layouts(demand: PoolDemand, supply: DeviceSupply) -> Iterator[ParallelLayout]:
    """Layouts that the devices of one kind have room for and that the demand allows, fewest devices first."""
    ranks = [demand.tensor_parallel] if demand.tensor_parallel else range(1, supply.largest_node + 1)
    stages = [demand.pipeline_parallel] if demand.pipeline_parallel else range(1, min(supply.devices, MAX_STAGES) + 1)
    if demand.facts is None:
        ranks, stages = [demand.tensor_parallel or 1], [demand.pipeline_parallel or 1]
    found = [
        ParallelLayout(rank, stage)
        for rank in ranks
        if rank <= supply.largest_node and (demand.facts is None or demand.facts.heads % rank == 0)
        for stage in stages
        if rank * stage <= supply.devices
    ]
    yield from sorted(found, key=lambda layout: (layout.devices, -layout.tensor_parallel))


def candidates(demand: PoolDemand, supply: DeviceSupply) -> list[Candidate]:
    """Layouts that fit, best first. Deeper pipelines than twice the shallowest that fits are not looked at."""
    found: list[Candidate] = []
    shallowest: dict[int, int] = {}
    for layout in layouts(demand, supply):
        ranks, stages = layout
        if stages > 2 * shallowest.get(ranks, MAX_STAGES):
            continue  # each stage more makes a request later and a bubble longer, and the model fits already
        fit = fit_on(demand, layout, supply.kind)
        if not fit.fits:
            continue
        if not _cramped(demand, fit):
            shallowest.setdefault(ranks, stages)
        cramped, rate = _cramped(demand, fit), _rate(demand, fit, supply)
        found.append(Candidate(fit, supply.kind, cramped, _sort(demand, layout, supply), rate))
    return sorted(found, key=lambda one: (one.cramped, one.sort, -one.rate, one.layout.devices))


def _cramped(demand: PoolDemand, fit: Fit) -> bool:
    if demand.facts is None or not fit.kv_tokens:
        return False
    requests = min(ROOMY_REQUESTS, fit.batch.max_num_seqs) if demand.batch_seqs else ROOMY_REQUESTS
    return fit.lowered_batch or fit.kv_tokens < requests * min(REQUEST_TOKENS, fit.max_model_len or REQUEST_TOKENS)


def _sort(demand: PoolDemand, layout: ParallelLayout, supply: DeviceSupply) -> int:
    ranks, stages = layout
    nodes = _nodes(layout, supply)
    if demand.goal == "latency":
        return 0 if nodes == 1 else nodes
    if layout.devices == 1:
        return 0
    if nodes > 1:
        return 10 * nodes
    pure = stages == 1 if supply.kind.fast else ranks == 1
    return 1 if pure else 2


def _nodes(layout: ParallelLayout, supply: DeviceSupply) -> int:
    """Nodes that a replica needs: as many stages to a node as its largest holds."""
    return -(-layout.pipeline_parallel // max(supply.largest_node // layout.tensor_parallel, 1))


def _rate(demand: PoolDemand, fit: Fit, supply: DeviceSupply) -> float:
    if demand.goal == "latency":
        return 1 / latency_cost(demand, fit, supply.kind)
    per_device = decode_rate(demand, fit, supply.kind) / fit.layout.devices
    return per_device * supply.used_share(fit.layout) if demand.replicas is None else per_device


def _cramped_reason(fit: Fit) -> str:
    if fit.lowered_batch:
        return "fits only with smaller batches than the engine's default"
    requests = noun(max(fit.kv_tokens // REQUEST_TOKENS, 1), "request")
    return f"KV cache for {requests} of {REQUEST_TOKENS:,} tokens: too few to keep a device busy"


def shape_reason(demand: PoolDemand, taken: Candidate, other: Candidate, supply: DeviceSupply) -> str:
    """Why `taken` stands before `other` on the same kind of devices."""
    if other.cramped and not taken.cramped:
        return _cramped_reason(other.fit)
    if demand.goal == "throughput" and taken.layout.devices == 1:
        return "fits on one device: replicated, not sharded"
    taken_nodes, nodes = _nodes(taken.layout, supply), _nodes(other.layout, supply)
    if nodes > taken_nodes:
        return f"needs {nodes} nodes, {noun(taken_nodes, 'node')} would suffice"
    if demand.goal == "throughput" and other.sort > taken.sort:
        if supply.kind.fast:
            return "fast links within the node: tensor parallelism before pipeline stages"
        return f"{supply.kind.link} within the node, no fast link: pipeline stages before tensor parallelism"
    share = other.rate / taken.rate if taken.rate else 0.0
    if demand.goal == "latency":
        return f"a token is estimated to take {1 / max(share, 0.001):.1f} times as long as with {taken.layout}"
    return f"estimated at {share:.0%} of the tokens per device of {taken.layout}"
