"""This machine for the planner: its GPUs with what others hold of them, and its cores with their memory."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from penstock.executors.binding import Gpu, available_cores, gpus
from penstock.executors.leases import DeviceLeases
from penstock.planner.cluster import CpuDomain, NodeFacts

__all__ = ["TAKEN_BYTES", "LocalCluster", "local_cluster"]

TAKEN_BYTES = 2_000_000_000  # in use by others: a model lies there; a display takes less
NUMA = Path("/sys/devices/system/node")
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class LocalCluster(NamedTuple):
    """nodes: this machine, an entry for each kind of device in it. notes: what is worth knowing of it."""

    nodes: tuple[NodeFacts, ...]
    notes: tuple[str, ...] = ()


def local_cluster(name: str | None = None, leases: DeviceLeases | None = None) -> LocalCluster:
    """The machine this runs on; what `leases` of other processes hold is in use.

    Raises ConfigError for a CUDA_VISIBLE_DEVICES that names what is not there.
    """
    node = name or socket.gethostname()
    found = gpus()
    cores = available_cores()
    domains = tuple(numa_domains(cores, NUMA, total_memory_bytes()))
    if not found:
        return LocalCluster((NodeFacts(name=node, cpus=len(cores), domains=domains),))
    held = (leases or DeviceLeases()).held_by_others([gpu.uuid for gpu in found])
    link = _link(found)
    kinds: dict[tuple[int, str], list[Gpu]] = {}
    for gpu in found:
        kinds.setdefault((gpu.memory_bytes, gpu.name), []).append(gpu)
    nodes = tuple(
        _node(node, alike, link, len(cores), domains if first else (), held)
        for first, alike in zip([True] + [False] * len(kinds), kinds.values(), strict=False)
    )
    return LocalCluster(nodes, tuple(_taken(found, held)))


def _node(
    name: str, alike: list[Gpu], link: str, cpus: int, domains: tuple[CpuDomain, ...], held: Mapping[str, str]
) -> NodeFacts:
    return NodeFacts(
        name=name,
        devices=len(alike),
        device_memory_bytes=alike[0].memory_bytes,
        link=link,
        cpus=cpus,
        used=tuple(index for index, gpu in enumerate(alike) if gpu.used_bytes > TAKEN_BYTES or gpu.uuid in held),
        device_name=alike[0].name,
        device_ids=tuple(gpu.token for gpu in alike),
        domains=domains,
    )


def _taken(found: list[Gpu], held: Mapping[str, str]) -> list[str]:
    leased = [
        f"GPU {gpu.token or gpu.index} ({gpu.name}) is held by {held[gpu.uuid]}" for gpu in found if gpu.uuid in held
    ]
    return leased + [
        f"GPU {gpu.token or gpu.index} ({gpu.name}): another process uses {gpu.used_bytes / 1e9:.1f} GB of its "
        f"{gpu.memory_bytes / 1e9:.1f} GB, so it is not used; `nvidia-smi` shows the process"
        for gpu in found
        if gpu.used_bytes > TAKEN_BYTES and gpu.uuid not in held
    ]


def _link(found: list[Gpu]) -> str:
    """nvlink where every GPU has an active link to another one, else pcie."""
    if len(found) < 2:
        return "pcie"
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            return "nvlink" if all(_has_nvlink(pynvml, gpu.index) for gpu in found) else "pcie"
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # no NVML, or one that does not know links: the slower link is the safe guess
        return "pcie"


def _has_nvlink(nvml: Any, index: int) -> bool:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    try:
        return bool(nvml.nvmlDeviceGetNvLinkState(handle, 0))
    except nvml.NVMLError:
        return False


def numa_domains(cores: list[int], folder: Path, memory_bytes: int) -> list[CpuDomain]:
    """The cores of each NUMA node that may be used, with their share of the memory that may be used."""
    found: list[tuple[tuple[int, ...], int]] = []
    for node in sorted(folder.glob("node[0-9]*"), key=lambda path: int(path.name.removeprefix("node"))):
        try:
            here = [core for core in parse_cpu_list((node / "cpulist").read_text()) if core in cores]
            total = _mem_total((node / "meminfo").read_text())
        except (OSError, ValueError):
            continue
        if here and total:
            found.append((tuple(here), total))
    if not found:
        return [CpuDomain(tuple(cores), memory_bytes)]
    share = min(1.0, memory_bytes / sum(total for _, total in found))
    return [CpuDomain(here, int(total * share)) for here, total in found]


def parse_cpu_list(text: str) -> list[int]:
    """0-3,8 -> 0, 1, 2, 3, 8."""
    cores: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores.extend(range(int(first), int(last or first) + 1))
    return cores


def _mem_total(meminfo: str) -> int:
    for line in meminfo.splitlines():
        if "MemTotal:" in line:
            return int(line.split()[-2]) * 1024
    return 0


def total_memory_bytes() -> int:
    """Of the machine, or of the container where that grants less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no control group, or "max"
        return total
