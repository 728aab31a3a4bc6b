"""Models on the cores of machines without accelerators.

Cores that share a memory (a NUMA node) are a domain. A replica lies in one domain; the replicas in a domain divide its
cores and its memory. A pool that takes as many replicas as there are gets one in each domain: an engine runs well on
all cores of one memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from penstock.planner.cluster import CpuDomain, NodeFacts
from penstock.planner.demand import PoolDemand, batch_for
from penstock.planner.fit import Fit, Memory, context_length
from penstock.planner.kv import kv_layout
from penstock.planner.layout import ParallelLayout, shape_constraint
from penstock.planner.memory import activation_bytes, stage_weights_bytes
from penstock.units import gigabytes, noun

__all__ = ["CpuPlacement", "NodeDomain", "cpu_domains", "cpu_fit", "share_cores"]


class NodeDomain(Struct, frozen=True):
    node: str
    cpus: CpuDomain


class CpuPlacement(Struct, frozen=True):
    """One replica: its domain (an index) and its cores."""

    domain: int
    cores: tuple[int, ...]


def cpu_domains(nodes: Sequence[NodeFacts]) -> list[NodeDomain]:
    return [NodeDomain(node.name, domain) for node in nodes for domain in node.domains if domain.cores]


def cpu_fit(demand: PoolDemand, domain: NodeDomain) -> Fit:
    """One rank of a replica in this domain. memory.device: the memory of the domain, which other replicas share."""
    layout = ParallelLayout(demand.tensor_parallel or 1, demand.pipeline_parallel or 1)
    facts = demand.facts
    device = domain.cpus.memory_bytes
    if facts is None:
        return Fit(layout=layout, memory=Memory(reserve=device, device=device), max_model_len=demand.max_model_len)
    if layout.devices > 1 and not demand.rules.splits:
        return Fit(layout=layout, constraint=f"the engine {demand.engine} does not support model parallelism")
    wrong = shape_constraint(facts, layout)
    if wrong is not None:
        return Fit(layout=layout, constraint=wrong)
    batch = batch_for(demand, None, layout.devices)
    weights = stage_weights_bytes(facts, layout, demand.dtype, demand.quantization)
    activations = activation_bytes(facts, layout, batch, demand.dtype_bytes)
    rules = demand.rules
    kv_bytes = (rules.cpu_kv_bytes if demand.kv_bytes is None else demand.kv_bytes) if facts.windows else 0
    kv_bytes = kv_bytes if rules.has_kv else 0
    memory = Memory(weights, kv_bytes, activations, device - weights - kv_bytes - activations, device)
    length, tokens, constraint = facts.max_position_embeddings, 0, None
    if kv_bytes:
        kv = kv_layout(
            facts, layout, demand.kv_dtype_bytes or demand.dtype_bytes, demand.block_tokens or rules.cpu_block_tokens,
            layout.pipeline_parallel * batch.max_num_batched_tokens, rules.hybrid_kv,
        )  # fmt: skip
        length, constraint = context_length(demand, facts, kv, kv_bytes)
        tokens = kv.tokens(kv_bytes, length)
    return Fit(layout=layout, memory=memory, batch=batch, max_model_len=length, kv_tokens=tokens, constraint=constraint)


def _replica_bytes(demand: PoolDemand, fit: Fit) -> int:
    ranks = fit.layout.devices
    return ranks * (fit.memory.weights + fit.memory.kv + fit.memory.activations) + demand.rules.process_bytes


def share_cores(
    pools: Sequence[PoolDemand], domains: Sequence[NodeDomain]
) -> tuple[list[list[CpuPlacement]], str | None]:
    """The replicas of each pool; and why they do not fit, or None."""
    chosen, problem = _choose_domains(pools, domains)
    if problem is not None:
        return [], problem
    placements: list[list[CpuPlacement]] = [[] for _ in pools]
    for index, domain in enumerate(domains):
        here = [(pool, chosen[pool].count(index)) for pool in range(len(pools))]
        needs = [pools[pool].ranks for pool, count in here for _ in range(count)]
        sets = _deal(domain.cpus.cores, needs)
        owners = [pool for pool, count in here for _ in range(count)]
        for owner, cores in zip(owners, sets, strict=True):
            placements[owner].append(CpuPlacement(index, cores))
    return placements, None


def _choose_domains(pools: Sequence[PoolDemand], domains: Sequence[NodeDomain]) -> tuple[list[list[int]], str | None]:
    """The domain of each replica: fixed numbers first, then one for each domain that has room."""
    cores = [len(domain.cpus.cores) for domain in domains]
    memory = [domain.cpus.memory_bytes for domain in domains]
    chosen: list[list[int]] = [[] for _ in pools]
    for growing in (False, True):
        for index, demand in enumerate(pools):
            fit = cpu_fit(demand, domains[0])
            if not fit.fits:
                return chosen, f"{demand.name}: {fit.constraint}"
            size = _replica_bytes(demand, fit) if demand.facts else 0
            least = 1 if demand.replicas is None else demand.replicas
            wanted = (len(domains) - 1 if demand.replicas is None else 0) if growing else least
            for _ in range(wanted):
                others = [i for i in range(len(domains)) if not growing or i not in chosen[index]]
                domain = max(others, key=lambda i: (cores[i], memory[i], -i), default=None)
                if domain is None or cores[domain] < demand.ranks or memory[domain] < size:
                    if growing:
                        break
                    return chosen, _too_little(pools, demand, size, domains, cores, memory)
                chosen[index].append(domain)
                cores[domain] -= demand.ranks
                memory[domain] -= size
    return chosen, None


def _too_little(
    pools: Sequence[PoolDemand],
    demand: PoolDemand,
    size: int,
    domains: Sequence[NodeDomain],
    cores: list[int],
    memory: list[int],
) -> str:
    if max(cores) < demand.ranks:
        need = ", ".join(f"{pool.name} {pool.replicas or 1} x {pool.ranks}" for pool in pools)
        total = sum(pool.ranks * (pool.replicas or 1) for pool in pools)
        have = sum(len(domain.cpus.cores) for domain in domains)
        return f"the models need {noun(total, 'CPU core')} ({need}), there are {have}; ask for fewer replicas"
    return (
        f"{demand.name}: a replica needs {gigabytes(size)} of memory (weights, KV cache, activations, processes), "
        f"{gigabytes(max(memory))} are left"
    )


def _deal(cores: Sequence[int], needs: Sequence[int]) -> list[tuple[int, ...]]:
    """All cores to the replicas of a domain: what each needs, and what is left over evenly."""
    spare = len(cores) - sum(needs)
    made, start = [], 0
    for number, need in enumerate(needs):
        size = need + spare // len(needs) + (1 if number < spare % len(needs) else 0)
        made.append(tuple(cores[start : start + size]))
        start += size
    return made
