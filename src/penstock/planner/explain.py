"""Reasons in words: layouts that were not taken, figures that were chosen, and what does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.planner.allocate import Options
from penstock.planner.candidates import Candidate, DeviceSupply, layouts, shape_reason
from penstock.planner.cluster import Kind
from penstock.planner.demand import PoolDemand
from penstock.planner.fit import Fit, fit_on
from penstock.planner.kv import model_bytes_per_token
from penstock.planner.layout import ParallelLayout
from penstock.planner.packing import FreeDevices
from penstock.planner.rate import REQUEST_TOKENS
from penstock.planner.result import Rejected, ReplicaPlan
from penstock.units import gigabytes, noun

__all__ = ["explain", "no_fit_reason", "no_place_reason", "rejected"]

MAX_REJECTED = 12
WORTH_TELLING = 1.5  # a layout that is estimated so much better than the one the rules take


def rejected(
    demand: PoolDemand,
    replicas: Sequence[ReplicaPlan],
    by_kind: Mapping[Kind, list[Candidate]],
    supplies: Mapping[Kind, DeviceSupply],
) -> tuple[Rejected, ...]:
    """Layouts that one might think of, and the first constraint that rules each out on the largest devices."""
    if demand.facts is None or not supplies:
        return ()
    taken = dict.fromkeys(ParallelLayout(replica.tensor_parallel, replica.pipeline_parallel) for replica in replicas)
    supply = supplies[max(supplies)]
    least = min((layout.devices for layout in taken), default=supply.devices)
    rejected = []
    for layout in _thinkable(supply, least if taken else min(supply.devices, 16)):
        if layout not in taken and _allowed(demand, layout):
            rejected.append(Rejected(str(layout), _why(demand, layout, by_kind.get(supply.kind, []), supply)))
    return tuple(rejected[:MAX_REJECTED])


def _thinkable(supply: DeviceSupply, devices: int) -> list[ParallelLayout]:
    """Powers of two up to twice what was taken."""
    powers = [1 << power for power in range(11) if 1 << power <= 2 * devices]
    found = [ParallelLayout(ranks, stages) for ranks in powers for stages in powers if ranks * stages <= 2 * devices]
    return sorted(found, key=lambda layout: (layout.devices, -layout.tensor_parallel))


def _why(demand: PoolDemand, layout: ParallelLayout, found: Sequence[Candidate], supply: DeviceSupply) -> str:
    if layout.tensor_parallel > supply.largest_node:
        needs = noun(layout.tensor_parallel, "device")
        return f"needs {needs} in one node, the largest node has {supply.largest_node} free"
    fit = fit_on(demand, layout, supply.kind)
    if fit.constraint is not None:
        return fit.constraint
    if layout.devices > supply.devices:
        return f"needs {layout.devices} devices, {supply.devices} free"
    this = next((one for one in found if one.layout == layout), None)
    if this is None:
        return f"fits, and so does {found[0].layout} with fewer devices" if found else "not tried"
    if found[0].layout == layout:
        return "no devices left next to the other models"
    return shape_reason(demand, found[0], this, supply)


def _allowed(demand: PoolDemand, layout: ParallelLayout) -> bool:
    """Whether the layout agrees with what was given."""
    ranks, stages = layout
    return demand.tensor_parallel in (None, ranks) and demand.pipeline_parallel in (None, stages)


def explain(demand: PoolDemand, fits: Sequence[Fit], length: int | None, found: Sequence[Candidate]) -> tuple[str, ...]:
    """How context, batch limits and layout came about. fits: those of the replicas; found: all that would fit."""
    reasons = [*_context(demand, length, fits)]
    lowered = next((fit for fit in fits if fit.lowered_batch), None)
    if lowered is not None:
        reasons.append(
            f"batches of {lowered.batch.max_num_batched_tokens:,} tokens and {lowered.batch.max_num_seqs} requests: "
            f"the engine's own limits leave no room for a KV cache"
        )
    for taken in (one for one in found if one.fit in fits and one.fit.kv_tokens):
        better = max((other for other in found if other.kind == taken.kind), key=lambda other: other.rate)
        if taken.rate and better.rate > WORTH_TELLING * taken.rate:
            reasons.append(
                f"{taken.layout} has KV cache for {max(taken.fit.kv_tokens // REQUEST_TOKENS, 1)} requests of "
                f"{REQUEST_TOKENS:,} tokens; {better.layout} is estimated to make {better.rate / taken.rate:.1f} times "
                f"the tokens per device"
            )
    return tuple(dict.fromkeys(reasons))


def _context(demand: PoolDemand, length: int | None, fits: Sequence[Fit]) -> list[str]:
    facts = demand.facts
    if facts is None or length is None or not facts.windows:
        return []
    limit = facts.max_position_embeddings
    if demand.max_model_len is not None:
        reason = f"max_model_len {length:,} as requested"
        if length > limit:
            reason += f"; the model's context length is {limit:,}, the engine may reject it"
        return [reason]
    if length == limit:
        return [f"max_model_len {length:,}: the model's context length; the KV cache holds one such request"]
    reason = f"max_model_len {length:,} of the model's {limit:,}: the longest request that the KV cache holds"
    longest = max((fit.max_model_len or 0 for fit in fits), default=0)
    if longest > length:
        least = min(fits, key=lambda fit: fit.max_model_len or longest)
        reason += f" on the devices of {gigabytes(least.memory.device)}; it is {longest:,} on others"
    return [reason]


def no_fit_reason(demand: PoolDemand, supplies: Mapping[Kind, DeviceSupply]) -> str:
    """No layout fits any free devices: need and have."""
    if not supplies:
        return f"{demand.name}: needs at least one device, none is free"
    supply = supplies[max(supplies)]
    largest = max(one.largest_node for one in supplies.values())
    asked = demand.tensor_parallel
    if asked is not None and asked > largest:
        return (
            f"{demand.name}: tensor_parallel {asked} needs {asked} devices in one node, the largest node has {largest} "
            f"free; a tensor-parallel group never spans nodes"
        )
    total = sum(one.devices for one in supplies.values())
    if demand.ranks > total:
        return f"{demand.name}: a replica of {demand.ranks} devices needs as many free devices, {total} are available"
    facts = demand.facts
    if facts is not None and asked is not None and facts.heads % asked:
        return f"{demand.name}: tensor_parallel {asked} does not divide its {facts.heads} attention heads"
    have = ", ".join(f"{one.devices} x {gigabytes(kind.memory_bytes)}" for kind, one in sorted(supplies.items()))
    return f"{demand.name}: needs {_need(demand)}, have {have} free; {_nearest(demand, supply)}"


def _need(demand: PoolDemand) -> str:
    facts = demand.facts
    if facts is None:
        return noun(demand.ranks, "device")
    need = f"{gigabytes(facts.weights_bytes(demand.dtype, demand.quantization))} for weights"
    if demand.max_model_len and facts.windows:
        element = demand.kv_dtype_bytes or demand.dtype_bytes
        kv = model_bytes_per_token(facts, element) * demand.max_model_len
        need += f" and {gigabytes(kv)} for the KV cache of one request of {demand.max_model_len:,} tokens"
    return need


def _nearest(demand: PoolDemand, supply: DeviceSupply) -> str:
    """What rules out the layout that comes nearest: the one with the smallest load on a device."""
    tried = [fit_on(demand, layout, supply.kind) for layout in layouts(demand, supply)]
    sized = [fit for fit in tried if fit.memory.weights]
    near = min(sized, key=lambda fit: (fit.memory.weights, fit.layout.devices), default=tried[0])
    return f"{near.layout}: {near.constraint}"


def no_place_reason(demand: PoolDemand, options: Options, devices: FreeDevices) -> str:
    """A replica fits some device, and they do not all find free ones."""
    layout, kinds = options.uniform()[0]
    count = demand.replicas or 1
    have = [(free, nodes) for kind, free, nodes in devices.counts() if kind in kinds]
    nodes = ", ".join(f"{noun(number, 'node')} with {free} free" for free, number in reversed(have)) or "none"
    needs = noun(count * layout.devices, "device")
    groups = f"{noun(count, 'replica')} of {layout}"
    return f"{demand.name}: needs {needs} ({groups}), have {nodes}; a tensor-parallel group never spans nodes"
