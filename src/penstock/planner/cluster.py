"""Machines for the planner: nodes, devices, and which of them are free."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

__all__ = ["FAST_LINKS", "CpuDomain", "FreeNode", "Kind", "NodeFacts", "free_nodes"]

# Links inside a node over which an all-reduce in every layer costs little. Whatever else stands there counts as slow.
FAST_LINKS = frozenset({"nvlink", "nvswitch", "xgmi", "neuronlink"})


class CpuDomain(Struct, frozen=True):
    """Cores that share one memory (a NUMA node). memory_bytes: what models may use of it."""

    cores: tuple[int, ...]
    memory_bytes: int


class NodeFacts(Struct, frozen=True, kw_only=True):
    """One machine, or the devices of one kind in it (two entries may bear one name).

    device_ids  names of the devices behind "gpu:"; empty: 0, 1, 2, ...
    used        indexes of devices that are not to be used
    domains     cores with their memory, for models that run on the CPU
    """

    name: str
    devices: int = 0
    device_memory_bytes: int = 0
    link: str = "pcie"
    cpus: int = 0
    used: tuple[int, ...] = ()
    device_name: str = ""
    device_ids: tuple[str, ...] = ()
    domains: tuple[CpuDomain, ...] = ()

    def device(self, index: int) -> str:
        """NODE/gpu:NAME, as devices are named everywhere."""
        return f"{self.name}/gpu:{self.device_ids[index] if self.device_ids else index}"


class Kind(NamedTuple):
    """Devices that are alike: what fits one fits the others. Sorts by memory, smallest first."""

    memory_bytes: int
    link: str
    name: str

    @property
    def label(self) -> str:
        return f"{self.name or 'GPU'} {self.memory_bytes / 1e9:.1f} GB {self.link}"

    @property
    def fast(self) -> bool:
        return self.link in FAST_LINKS


class FreeNode(NamedTuple):
    """A node with devices that may be used: `free` are their indexes, ascending."""

    node: NodeFacts
    kind: Kind
    free: tuple[int, ...]


def free_nodes(nodes: tuple[NodeFacts, ...], reserve_per_node: int) -> list[FreeNode]:
    """Nodes that have devices left once those in use and `reserve_per_node` of each machine are put aside.

    The reserved ones are the last of a machine, so that what is kept is the same on every machine.
    """
    owed = {node.name: reserve_per_node for node in nodes}
    found = []
    for node in reversed(nodes):
        used = set(node.used)
        free = [index for index in range(node.devices) if index not in used]
        kept = min(owed[node.name], len(free))
        owed[node.name] -= kept
        left = tuple(free[: len(free) - kept])
        if left:
            kind = Kind(node.device_memory_bytes, node.link, node.device_name)
            found.append(FreeNode(node, kind, left))
    return found[::-1]
