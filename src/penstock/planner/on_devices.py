"""Pools on accelerators: which fit together, their replicas, and the reasons."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.planner.allocate import Options, allocate
from penstock.planner.candidates import DeviceSupply, candidates
from penstock.planner.cluster import Kind, NodeFacts, free_nodes
from penstock.planner.demand import PoolDemand, Sharing
from penstock.planner.devices import name_devices
from penstock.planner.explain import explain, no_fit_reason, no_place_reason, rejected
from penstock.planner.fit import Fit, fit_on
from penstock.planner.layout import ParallelLayout
from penstock.planner.packing import FreeDevices
from penstock.planner.result import Rejected, ReplicaPlan

__all__ = ["OnDevices"]


class OnDevices:
    """The free devices of a cluster, and the pools that want them."""

    def __init__(self, demands: Sequence[PoolDemand], nodes: Sequence[NodeFacts], sharing: Sharing) -> None:
        self.demands = list(demands)
        self._free = free_nodes(tuple(nodes), sharing.reserve_per_node)
        self._devices = FreeDevices([(node.kind, len(node.free)) for node in self._free])
        self._supplies = {kind: self._supply(kind) for kind in self._devices.kinds()}
        self._strategy = sharing.strategy
        self._found: dict[str, Options] = {}  # all layouts that fit
        self._options: dict[str, Options] = {}  # those that are taken
        self._fits: dict[str, dict[Fit, None]] = {}
        self._known: dict[tuple[str, ParallelLayout, Kind], Fit] = {}
        for demand in demands:
            by_kind = {kind: candidates(demand, supply) for kind, supply in self._supplies.items()}
            self._found[demand.name] = Options(demand, by_kind)
            self._options[demand.name] = self._wanted(self._found[demand.name])

    def _supply(self, kind: Kind) -> DeviceSupply:
        return DeviceSupply(kind, tuple((free, nodes) for this, free, nodes in self._devices.counts() if this == kind))

    def _wanted(self, options: Options) -> Options:
        """Cramped layouts are taken only where nothing else has a place, not to spare another phase."""
        roomy = options.roomy()
        return roomy if allocate([roomy], self._devices.copy(), self._strategy, grow=False) is not None else options

    def together(self, names: Sequence[str]) -> bool:
        pools = [self._options[name] for name in names]
        return allocate(pools, self._devices.copy(), self._strategy, grow=False) is not None

    def replicas(self, names: Sequence[str], phase: int) -> dict[str, list[ReplicaPlan]]:
        """The replicas of pools that fit together, as many as they may have."""
        pools = [self._options[name] for name in names]
        placed = allocate(pools, self._devices.copy(), self._strategy)
        assert placed is not None, f"{', '.join(names)} fitted together before"
        named = name_devices(self._free, phase, pools, placed, self._fit)
        return dict(zip(names, named, strict=True))

    def _fit(self, pool: Options, layout: ParallelLayout, kind: Kind) -> Fit:
        """Once for replicas that are alike; `_fits` has the order in which they are taken, to explain them."""
        key = (pool.demand.name, layout, kind)
        if key not in self._known:
            self._known[key] = fit_on(pool.demand, layout, kind)
            self._fits.setdefault(pool.demand.name, {})[self._known[key]] = None
        return self._known[key]

    def context(self, demand: PoolDemand, replicas: Sequence[ReplicaPlan]) -> tuple[int | None, tuple[str, ...]]:
        """The longest request that every replica takes, and how the figures of the replicas came about."""
        fits = list(self._fits.get(demand.name, {}))
        lengths = [fit.max_model_len for fit in fits if fit.max_model_len is not None]
        length = min(lengths) if lengths else demand.max_model_len
        found = [one for found in self._found[demand.name].by_kind.values() for one in found]
        return length, explain(demand, fits, length, found) if replicas else ()

    def rejected(self, demand: PoolDemand, replicas: Sequence[ReplicaPlan]) -> tuple[Rejected, ...]:
        return rejected(demand, replicas, self._found[demand.name].by_kind, self._supplies)

    def why_not(self, demand: PoolDemand) -> str | None:
        """Why the pool does not even fit alone, or None where it does."""
        if self.together([demand.name]):
            return None
        options = self._options[demand.name]
        if not any(options.by_kind.values()):
            return no_fit_reason(demand, self._supplies)
        return no_place_reason(demand, options, self._devices)
