"""Placed groups to named devices, and the figures of each replica."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.planner.allocate import Options, Placed
from penstock.planner.cluster import FreeNode, Kind
from penstock.planner.fit import Fit, fit_on
from penstock.planner.layout import Layout
from penstock.planner.result import ReplicaPlan

__all__ = ["Naming"]

Group = tuple[int, tuple[int, ...]]  # a node, and indexes of its devices


class Naming:
    """Gives the replicas of one phase their devices. `fits`: what came of each pool, layout and kind of device."""

    def __init__(self, nodes: Sequence[FreeNode], phase: int) -> None:
        self._nodes = nodes
        self._free = [list(node.free) for node in nodes]
        self._phase = phase
        self.fits: dict[tuple[str, Layout, Kind], Fit] = {}

    def name(self, pools: Sequence[Options], placed: Sequence[Sequence[Placed]]) -> list[list[ReplicaPlan]]:
        """Replicas of each pool, without ids, in the order of nodes and devices.

        Larger groups get the lower devices of a node, so that they lie where links are laid out in twos and fours.
        """
        order = sorted(
            ((index, number) for index, found in enumerate(placed) for number in range(len(found))),
            key=lambda at: (-placed[at[0]][at[1]].layout.tensor_parallel, at),
        )
        made: list[list[tuple[Group, ReplicaPlan]]] = [[] for _ in pools]
        for index, number in order:
            replica = placed[index][number]
            groups = [self._take(node, replica.layout.tensor_parallel) for node in replica.nodes]
            made[index].append((groups[0], self._plan(pools[index], replica, groups)))
        return [[replica for _, replica in sorted(found, key=lambda pair: pair[0])] for found in made]

    def _take(self, node: int, size: int) -> Group:
        taken = tuple(self._free[node][:size])
        del self._free[node][:size]
        return node, taken

    def _plan(self, pool: Options, replica: Placed, groups: list[Group]) -> ReplicaPlan:
        kind = min(self._nodes[node].kind for node in replica.nodes)
        fit = self._fit(pool, replica.layout, kind)
        nodes = [self._nodes[node].node for node, _ in groups]
        return ReplicaPlan(
            id="",
            nodes=tuple(dict.fromkeys(node.name for node in nodes)),
            devices=tuple(self._nodes[node].node.device(device) for node, taken in groups for device in taken),
            tensor_parallel=replica.layout.tensor_parallel,
            pipeline_parallel=replica.layout.pipeline_parallel,
            memory=fit.memory,
            max_num_seqs=fit.batch.max_num_seqs,
            max_num_batched_tokens=fit.batch.max_num_batched_tokens,
            kv_tokens=fit.kv_tokens,
            phases=(self._phase,),
            device_kind=kind.label,
        )

    def _fit(self, pool: Options, layout: Layout, kind: Kind) -> Fit:
        key = (pool.demand.name, layout, kind)
        if key not in self.fits:
            self.fits[key] = fit_on(pool.demand, layout, kind)
        return self.fits[key]
