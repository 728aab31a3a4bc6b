"""Pools on accelerators: which fit together, their replicas, and the reasons."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.planner.allocate import Options, allocate
from penstock.planner.candidates import Room, candidates
from penstock.planner.cluster import Kind, NodeFacts, free_nodes
from penstock.planner.demand import PoolDemand, Sharing
from penstock.planner.devices import Naming
from penstock.planner.explain import explain, no_fit_reason, no_place_reason, rejected
from penstock.planner.fit import Fit
from penstock.planner.packing import Floor
from penstock.planner.result import Rejected, ReplicaPlan

__all__ = ["OnDevices"]


class OnDevices:
    """The free devices of a cluster, and the pools that want them."""

    def __init__(self, demands: Sequence[PoolDemand], nodes: Sequence[NodeFacts], sharing: Sharing) -> None:
        self.demands = list(demands)
        self._free = free_nodes(tuple(nodes), sharing.reserve_per_node)
        self._floor = Floor([(node.kind, len(node.free)) for node in self._free])
        self._rooms = {kind: self._room(kind) for kind in self._floor.kinds()}
        self._strategy = sharing.strategy
        self._found: dict[str, Options] = {}  # all layouts that fit
        self._options: dict[str, Options] = {}  # those that are taken
        self._fits: dict[str, dict[Fit, None]] = {}
        for demand in demands:
            by_kind = {kind: candidates(demand, room) for kind, room in self._rooms.items()}
            self._found[demand.name] = Options(demand, by_kind)
            self._options[demand.name] = self._wanted(self._found[demand.name])

    def _room(self, kind: Kind) -> Room:
        return Room(kind, tuple((free, nodes) for this, free, nodes in self._floor.counts() if this == kind))

    def _wanted(self, options: Options) -> Options:
        """Cramped layouts are taken only where nothing else has a place, not to spare another phase."""
        roomy = options.roomy()
        return roomy if allocate([roomy], self._floor.copy(), self._strategy, grow=False) is not None else options

    def together(self, names: Sequence[str]) -> bool:
        pools = [self._options[name] for name in names]
        return allocate(pools, self._floor.copy(), self._strategy, grow=False) is not None

    def replicas(self, names: Sequence[str], phase: int) -> dict[str, list[ReplicaPlan]]:
        """The replicas of pools that fit together, as many as they may have."""
        pools = [self._options[name] for name in names]
        placed = allocate(pools, self._floor.copy(), self._strategy)
        assert placed is not None, f"{', '.join(names)} fitted together before"
        naming = Naming(self._free, phase)
        named = naming.name(pools, placed)
        for (name, _, _), fit in naming.fits.items():
            self._fits.setdefault(name, {})[fit] = None
        return dict(zip(names, named, strict=True))

    def context(self, demand: PoolDemand, replicas: Sequence[ReplicaPlan]) -> tuple[int | None, tuple[str, ...]]:
        """The longest request that every replica takes, and how the figures of the replicas came about."""
        fits = list(self._fits.get(demand.name, {}))
        lengths = [fit.max_model_len for fit in fits if fit.max_model_len is not None]
        length = min(lengths) if lengths else demand.max_model_len
        found = [one for found in self._found[demand.name].by_kind.values() for one in found]
        return length, explain(demand, fits, length, found) if replicas else ()

    def rejected(self, demand: PoolDemand, replicas: Sequence[ReplicaPlan]) -> tuple[Rejected, ...]:
        return rejected(demand, replicas, self._found[demand.name].by_kind, self._rooms)

    def why_not(self, demand: PoolDemand) -> str | None:
        """Why the pool does not even fit alone, or None where it does."""
        if self.together([demand.name]):
            return None
        options = self._options[demand.name]
        if not any(options.by_kind.values()):
            return no_fit_reason(demand, self._rooms)
        return no_place_reason(demand, options, self._floor)
