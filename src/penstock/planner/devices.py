"""Placed groups to named devices, and the figures of each replica."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.planner.allocate import Options, Placed
from penstock.planner.cluster import FreeNode, Kind
from penstock.planner.fit import Fit
from penstock.planner.layout import ParallelLayout
from penstock.planner.result import ReplicaPlan

__all__ = ["name_devices"]

FitOf = Callable[[Options, ParallelLayout, Kind], Fit]
Group = tuple[int, tuple[int, ...]]  # a node, and indexes of its devices


def name_devices(
    nodes: Sequence[FreeNode], phase: int, pools: Sequence[Options], placed: Sequence[Sequence[Placed]], fit_of: FitOf
) -> list[list[ReplicaPlan]]:
    """Replicas of each pool, without ids, in the order of nodes and devices. fit_of: the figures of a replica.

    Larger groups get the lower devices of a node, so that they lie where links are laid out in twos and fours.
    """
    free = [list(node.free) for node in nodes]
    order = sorted(
        ((index, number) for index, found in enumerate(placed) for number in range(len(found))),
        key=lambda at: (-placed[at[0]][at[1]].layout.tensor_parallel, at),
    )
    made: list[list[tuple[Group, ReplicaPlan]]] = [[] for _ in pools]
    for index, number in order:
        replica = placed[index][number]
        groups = [_take(free, node, replica.layout.tensor_parallel) for node in replica.nodes]
        kind = min(nodes[node].kind for node in replica.nodes)
        fit = fit_of(pools[index], replica.layout, kind)
        made[index].append((groups[0], _plan(nodes, replica, groups, fit, kind, phase)))
    return [[replica for _, replica in sorted(found, key=lambda pair: pair[0])] for found in made]


def _take(free: list[list[int]], node: int, size: int) -> Group:
    taken = tuple(free[node][:size])
    del free[node][:size]
    return node, taken


def _plan(
    nodes: Sequence[FreeNode], replica: Placed, groups: Sequence[Group], fit: Fit, kind: Kind, phase: int
) -> ReplicaPlan:
    own = [(nodes[node].node, taken) for node, taken in groups]
    return ReplicaPlan(
        id="",
        nodes=tuple(dict.fromkeys(node.name for node, _ in own)),
        devices=tuple(node.device(device) for node, taken in own for device in taken),
        tensor_parallel=replica.layout.tensor_parallel,
        pipeline_parallel=replica.layout.pipeline_parallel,
        memory=fit.memory,
        max_num_seqs=fit.batch.max_num_seqs,
        max_num_batched_tokens=fit.batch.max_num_batched_tokens,
        kv_tokens=fit.kv_tokens,
        phases=(phase,),
        device_kind=kind.label,
    )
