"""Which bundles a replica takes: one of its own, or several of one node inside a placement group of the caller.

The nodes of a group's bundles are read from Ray's table, never guessed from their order: Ray sorts equal bundles
unstably, and neighbours by index may lie on two nodes (ray issue 51117).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from penstock.errors import PlanError
from penstock.executors.ray_cluster import RayNode

__all__ = ["Bundle", "Seat", "bundles_of", "choose", "nodes_of_group", "seat_in_group"]


class Bundle(NamedTuple):
    number: int
    node: str
    gpus: int
    cpus: int


class Seat(NamedTuple):
    """group None: a placement group of its own, with the one bundle 0. node: the id it has to be, "" for any."""

    group: Any
    bundles: tuple[int, ...]
    node: str
    gpus: int
    cpus: int


def choose(bundles: Iterable[Bundle], gpus: int, cpus: int) -> tuple[Bundle, ...]:
    """Free bundles of one node that hold so many GPUs (or CPUs): of the node where the fewest are left over, so that
    larger groups still fit elsewhere. () where no node has them."""
    by_node: dict[str, list[Bundle]] = {}
    for bundle in bundles:
        by_node.setdefault(bundle.node, []).append(bundle)
    fitting: list[tuple[int, str, tuple[Bundle, ...]]] = []
    for node, here in by_node.items():
        taken = _enough(sorted(here), gpus, cpus)
        if taken:
            fitting.append((sum(each.gpus or each.cpus for each in here), node, taken))
    return min(fitting)[2] if fitting else ()


def _enough(here: Sequence[Bundle], gpus: int, cpus: int) -> tuple[Bundle, ...]:
    """The first bundles that together have exactly what is needed."""
    taken: list[Bundle] = []
    have = 0
    need = gpus or max(cpus, 1)
    for bundle in here:
        size = bundle.gpus if gpus else bundle.cpus
        if 0 < size <= need - have:
            taken.append(bundle)
            have += size
        if have == need:
            return tuple(taken)
    return ()


def bundles_of(ray: Any, group: Any) -> list[Bundle]:
    """All bundles of a placement group that is ready, with their nodes. Raises PlanError where it is not."""
    from ray.util.placement_group import placement_group_table

    table = placement_group_table(group)
    if table.get("state") != "CREATED":
        raise PlanError(f"the placement group is {str(table.get('state')).lower()}; wait for its `ready()` first")
    nodes = table["bundles_to_node_id"]
    return [
        Bundle(int(number), nodes[number], int(spec.get("GPU", 0)), int(spec.get("CPU", 0)))
        for number, spec in table["bundles"].items()
    ]


def seat_in_group(ray: Any, group: Any, taken: set[int], gpus: int, cpus: int) -> Seat:
    """Raises PlanError where no node has enough bundles that no other replica holds."""
    free = [bundle for bundle in bundles_of(ray, group) if bundle.number not in taken]
    found = choose(free, gpus, cpus)
    if not found:
        need = f"{gpus} GPUs" if gpus else f"{cpus} CPUs"
        raise PlanError(f"no node has {need} in free bundles of the placement group; {len(free)} bundles are free")
    return Seat(group, tuple(bundle.number for bundle in found), found[0].node, gpus, cpus)


def nodes_of_group(ray: Any, group: Any, found: Sequence[RayNode]) -> list[RayNode]:
    """The nodes of the caller's group, with its bundles in place of what is free."""
    bundles = bundles_of(ray, group)
    made = []
    for node in found:
        here = [bundle for bundle in bundles if bundle.node == node.id]
        if here:
            gpus, cpus = sum(each.gpus for each in here), sum(each.cpus for each in here)
            made.append(msgspec.structs.replace(node, gpus=gpus, free_gpus=gpus, cpus=cpus, free_cpus=cpus))
    return made
