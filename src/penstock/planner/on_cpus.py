"""Pools on the cores of machines without accelerators: the same questions as of `OnDevices`."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.planner.cluster import NodeFacts
from penstock.planner.cpu import CpuPlacement, cpu_domains, cpu_fit, share_cores
from penstock.planner.demand import PoolDemand
from penstock.planner.explain import explain
from penstock.planner.result import Rejected, ReplicaPlan

__all__ = ["OnCpus"]


class OnCpus:
    """The cores of a cluster, and the pools that want them."""

    def __init__(self, demands: Sequence[PoolDemand], nodes: Sequence[NodeFacts]) -> None:
        self.demands = list(demands)
        self._by_name = {demand.name: demand for demand in demands}
        self._domains = cpu_domains(nodes)

    def together(self, names: Sequence[str]) -> bool:
        if not names:
            return True
        return bool(self._domains) and share_cores([self._by_name[name] for name in names], self._domains)[1] is None

    def replicas(self, names: Sequence[str], phase: int) -> dict[str, list[ReplicaPlan]]:
        if not names:
            return {}
        pools = [self._by_name[name] for name in names]
        placements, problem = share_cores(pools, self._domains)
        assert problem is None, f"{', '.join(names)} fitted together before"
        return {
            pool.name: [self._plan(pool, placement, phase) for placement in found]
            for pool, found in zip(pools, placements, strict=True)
        }

    def _plan(self, demand: PoolDemand, placement: CpuPlacement, phase: int) -> ReplicaPlan:
        domain = self._domains[placement.domain]
        fit = cpu_fit(demand, domain)
        return ReplicaPlan(
            id="",
            nodes=(domain.node,),
            devices=tuple(f"{domain.node}/cpu:{core}" for core in placement.cores),
            tensor_parallel=fit.layout.tensor_parallel,
            pipeline_parallel=fit.layout.pipeline_parallel,
            memory=fit.memory,
            max_num_seqs=fit.batch.max_num_seqs,
            max_num_batched_tokens=fit.batch.max_num_batched_tokens,
            kv_tokens=fit.kv_tokens,
            phases=(phase,),
        )

    def context(self, demand: PoolDemand, replicas: Sequence[ReplicaPlan]) -> tuple[int | None, tuple[str, ...]]:
        if not self._domains or not replicas:
            return demand.max_model_len, ()
        fit = cpu_fit(demand, self._domains[0])
        return fit.max_model_len, explain(demand, [fit], fit.max_model_len, [])

    def rejected(self, demand: PoolDemand, replicas: Sequence[ReplicaPlan]) -> tuple[Rejected, ...]:
        if demand.ranks > 1 or not replicas:
            return ()
        return (Rejected("tp=2 pp=1", "the cores of a domain share one memory: one replica uses them all"),)

    def why_not(self, demand: PoolDemand) -> str | None:
        if not self._domains:
            return f"{demand.name}: no node has devices, or cores with memory_gb"
        return share_cores([demand], self._domains)[1]
