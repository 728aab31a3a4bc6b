"""The nodes of a Ray cluster for the planner: what is free on each, by Ray, and what it is made of, by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.executors.ray_cluster import RayNode
from penstock.planner.cluster import CpuDomain, NodeFacts

__all__ = ["facts_from", "node_facts_json", "ray_nodes"]

PROBE_LIMIT_S = 60.0


def ray_nodes(ray: Any, found: Sequence[RayNode]) -> tuple[NodeFacts, ...]:
    """Ask every node what it has, at once, and lay that beside what Ray says is free."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(node_facts_json)
    asked = {
        node.id: ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote()
        for node in found
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=PROBE_LIMIT_S)
    reported: dict[str, list[NodeFacts]] = {}
    for number, ref in asked.items():
        try:
            reported[number] = msgspec.json.decode(ray.get(ref, timeout=0.1), type=list[NodeFacts])
        except Exception:  # a node that has just gone, or one without Penstock: a replica there would say so
            continue
    return facts_from(found, reported)


def node_facts_json() -> str:
    """What this machine has, as text; runs on the node."""
    from penstock.planning.machine import local_cluster

    return msgspec.json.encode(local_cluster().nodes).decode()


def facts_from(found: Sequence[RayNode], reported: Mapping[str, Sequence[NodeFacts]]) -> tuple[NodeFacts, ...]:
    """Ray's count decides how much is free; kinds and memories are the machine's own word. A node that said nothing
    has devices without memory: enough for models that need none."""
    return tuple(_node(node, reported.get(node.id, ())) for node in found if node.id in reported or node.gpus)


def _node(node: RayNode, reported: Sequence[NodeFacts]) -> NodeFacts:
    first = next((each for each in reported if each.devices), reported[0] if reported else None)
    memory = sum(domain.memory_bytes for each in reported for domain in each.domains)
    domain = CpuDomain(tuple(range(node.free_cpus)), memory)
    return NodeFacts(
        name=node.name,
        devices=node.gpus,
        used=tuple(range(node.free_gpus, node.gpus)),  # which ones are free is Ray's to say, and only how many counts
        device_memory_bytes=min((each.device_memory_bytes for each in reported if each.devices), default=0),
        link=first.link if first is not None else "pcie",
        cpus=node.cpus,
        device_name=first.device_name if first is not None else "",
        domains=(domain,) if node.free_cpus and memory else (),
    )
