"""The replicas of the pools of one phase: first what each must have, then as many more as the devices hold.

1. For each pool in turn a layout, tried in the order of preference of all together, until all groups find a place.
2. Pools that take as many replicas as there are grow by their share of the devices: `even`, the pool with the
   fewest devices for its weight first; `priority`, the heaviest pool as far as it goes, then the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from msgspec import Struct

from penstock.planner.candidates import Candidate
from penstock.planner.cluster import Kind
from penstock.planner.demand import PoolDemand
from penstock.planner.layout import ParallelLayout
from penstock.planner.packing import DeviceGroups, FreeDevices, pack

__all__ = ["Options", "Placed", "allocate"]

MAX_COMBINATIONS = 500  # of layouts of several pools that are tried
LAYOUTS_TRIED = 8  # of one pool


class Options(Struct, frozen=True):
    """One pool and its layouts, by kind of device, best first."""

    demand: PoolDemand
    by_kind: dict[Kind, list[Candidate]]

    def roomy(self) -> Options:
        """Without layouts that are cramped."""
        kept = {kind: [one for one in found if not one.cramped] for kind, found in self.by_kind.items()}
        return Options(self.demand, kept)

    def uniform(self) -> list[tuple[ParallelLayout, tuple[Kind, ...]]]:
        """Layouts with the kinds that they fit, best first: each layout stands where it stands on its best kind."""
        best: dict[ParallelLayout, tuple[bool, int, float]] = {}
        kinds: dict[ParallelLayout, list[Kind]] = {}
        for kind, found in self.by_kind.items():
            for one in found:
                key = (one.cramped, one.sort, -one.rate)
                best[one.layout] = min(best.get(one.layout, key), key)
                kinds.setdefault(one.layout, []).append(kind)
        order = sorted(best, key=lambda layout: (best[layout], layout.devices))
        return [(layout, tuple(sorted(kinds[layout]))) for layout in order]


class Placed(Struct, frozen=True):
    """One replica: the node of each of its stages (an index), and the layout."""

    layout: ParallelLayout
    nodes: tuple[int, ...]


def allocate(
    pools: Sequence[Options], free_devices: FreeDevices, strategy: str, *, grow: bool = True
) -> list[list[Placed]] | None:
    """The replicas of each pool, or None where they do not all fit. Takes devices from `free_devices`."""
    fixed = [1 if pool.demand.replicas is None else pool.demand.replicas for pool in pools]
    placed = _base(pools, fixed, free_devices)
    short: list[int] = [0] * len(pools)
    if placed is None and max(fixed, default=1) > 1:  # one layout for all of them does not do; perhaps several do
        placed = _base(pools, [1] * len(pools), free_devices)
        short = [count - 1 for count in fixed]
    if placed is None:
        return None
    growth = _Growth(pools, free_devices, placed)
    for index, missing in enumerate(short):
        if growth.grow_by(index, missing) < missing:
            return None
    if grow:
        growth.share_out([i for i, pool in enumerate(pools) if pool.demand.replicas is None], strategy)
    return placed


def _base(pools: Sequence[Options], counts: Sequence[int], free_devices: FreeDevices) -> list[list[Placed]] | None:
    """So many replicas of each pool, each pool in one layout."""
    ranked = [pool.uniform()[:LAYOUTS_TRIED] for pool in pools]
    # The least loss of preference over all pools, rather than the best layout of one at the cost of another.
    choices = sorted(product(*(range(len(found)) for found in ranked)), key=lambda ranks: (sum(ranks), ranks))
    for ranks in choices[:MAX_COMBINATIONS]:
        chosen = [ranked[index][rank] for index, rank in enumerate(ranks)]
        items = [
            DeviceGroups(layout.tensor_parallel, count * layout.pipeline_parallel, kinds)
            for (layout, kinds), count in zip(chosen, counts, strict=True)
        ]
        nodes = pack(items, free_devices)
        if nodes is not None:
            return [_replicas(layout, found, free_devices) for (layout, _), found in zip(chosen, nodes, strict=True)]
    return None


def _replicas(layout: ParallelLayout, nodes: list[int], free_devices: FreeDevices) -> list[Placed]:
    """Groups of devices to replicas: stages of one replica on one node where they can be, then on nodes alike."""
    stages = layout.pipeline_parallel
    by_node: dict[int, int] = {}
    for node in nodes:
        by_node[node] = by_node.get(node, 0) + 1
    whole: list[tuple[int, ...]] = []
    left: list[int] = []
    for node in sorted(by_node):
        whole += [(node,) * stages] * (by_node[node] // stages)
        left += [node] * (by_node[node] % stages)
    left.sort(key=lambda node: (free_devices.kind[node], node))
    whole += [tuple(left[start : start + stages]) for start in range(0, len(left), stages)]
    return [Placed(layout, found) for found in whole]


class _Growth:
    """Adds replicas, each in the layout that is best on the devices it gets."""

    def __init__(self, pools: Sequence[Options], free_devices: FreeDevices, placed: list[list[Placed]]) -> None:
        self._pools = pools
        self._free = free_devices
        self._placed = placed
        self._devices = [sum(replica.layout.devices for replica in replicas) for replicas in placed]
        self._open = [self._options_of(pool) for pool in pools]

    def _options_of(self, pool: Options) -> list[tuple[Kind, ParallelLayout]]:
        """Where the pool may grow: kinds that few pools can use first, among those the one with least memory; on each
        the best layout, then others that make use of what it leaves."""
        wanted = {kind: sum(1 for other in self._pools if other.by_kind.get(kind)) for kind in pool.by_kind}
        kinds = sorted((kind for kind, found in pool.by_kind.items() if found), key=lambda k: (wanted[k], k))
        return [(kind, one.layout) for kind in kinds for one in pool.by_kind[kind][:LAYOUTS_TRIED]]

    def grow_by(self, index: int, count: int) -> int:
        added = 0
        while added < count and self._add(index):
            added += 1
        return added

    def share_out(self, growing: list[int], strategy: str) -> None:
        weights = [pool.demand.weight for pool in self._pools]
        while growing:
            if strategy == "priority":
                index = min(growing, key=lambda i: (-weights[i], i))
            else:
                index = min(growing, key=lambda i: (self._devices[i] / weights[i], i))
            if not self._add(index):
                growing.remove(index)

    def _add(self, index: int) -> bool:
        options = self._open[index]
        while options:
            kind, layout = options[0]
            nodes = self._take(kind, layout)
            if nodes is not None:
                self._placed[index].append(Placed(layout, nodes))
                self._devices[index] += layout.devices
                return True
            options.pop(0)
        return False

    def _take(self, kind: Kind, layout: ParallelLayout) -> tuple[int, ...] | None:
        """The nodes of the stages of one more replica, on one node where that can be."""
        ranks, stages = layout
        node = self._free.take(kind, ranks * stages)
        if node is not None:
            return (node,) * stages
        if stages == 1 or self._free.groups(kind, ranks) < stages:
            return None
        found = [self._free.take(kind, ranks) for _ in range(stages)]
        return tuple(node for node in found if node is not None)
