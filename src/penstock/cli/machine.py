"""Inspects this machine: cores, memory, GPUs, installed engines and executors. Loads none of them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from penstock import engine_info
from penstock.distribution import install_command
from penstock.engine_info import model_engines

_CGROUP = Path("/sys/fs/cgroup")


class GpuReport(msgspec.Struct):
    index: int
    name: str
    memory_bytes: int
    used_bytes: int


class Component(msgspec.Struct):
    """An engine or executor: installed, with which versions, or the command that installs it."""

    name: str
    installed: bool
    versions: dict[str, str]
    install: str | None


class MachineReport(msgspec.Struct):
    penstock: str
    python: str
    platform: str
    cores: int
    usable_cores: int
    memory_bytes: int
    free_memory_bytes: int
    gpus: list[GpuReport]
    no_gpu_reason: str | None
    engines: list[Component]
    executors: list[Component]
    advice: list[str]


def examine() -> MachineReport:
    """Look at this machine. Takes some milliseconds; changes nothing."""
    import psutil

    from penstock import __version__

    memory = psutil.virtual_memory()
    gpus, reason = find_gpus()
    machine = MachineReport(
        penstock=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        memory_bytes=min(memory.total, _cgroup_number("memory.max") or memory.total),
        free_memory_bytes=memory.available,
        gpus=gpus,
        no_gpu_reason=reason,
        engines=_engines(),
        executors=[Component("local", True, {}, None), _ray()],
        advice=[],
    )
    machine.advice = _advice(machine)
    return machine


def usable_cores() -> int:
    """Cores that this process may run on: its affinity, and below that the CPU quota of its control group."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return allowed if quota == "max" else min(allowed, max(int(quota) // int(period), 1))
    except (OSError, ValueError):
        return allowed


def _cgroup_number(name: str) -> int | None:
    try:
        return int((_CGROUP / name).read_text())
    except (OSError, ValueError):  # no control group, or "max"
        return None


def find_gpus() -> tuple[list[GpuReport], str | None]:
    """The NVIDIA GPUs of this machine, or none and the reason why none can be seen."""
    try:
        import pynvml
    except ImportError:
        return [], "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [], f"NVML: {error}"
    try:
        return [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())], None
    except pynvml.NVMLError as error:
        return [], f"NVML: {error}"
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> GpuReport:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = nvml.nvmlDeviceGetName(handle)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return GpuReport(index, name if isinstance(name, str) else name.decode(), int(memory.total), int(memory.used))


def _engines() -> list[Component]:
    parts = []
    for info in model_engines():
        if info.adapter:
            installed = engine_info.is_installed(info)
            install = None if installed else engine_info.install_hint(info)
            parts.append(Component(info.name, installed, _versions(info.distributions), install))
    return parts


def _ray() -> Component:
    installed = find_spec("ray") is not None
    return Component("ray", installed, _versions(("ray",)), None if installed else install_command("ray"))


def _versions(distributions: tuple[str, ...]) -> dict[str, str]:
    versions = {}
    for name in distributions:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _advice(machine: MachineReport) -> list[str]:
    """What to do about what was found, most useful first."""
    installed = {part.name for part in machine.engines if part.installed}
    local = [info for info in model_engines() if info.devices and info.adapter]
    best = max(local, key=lambda info: (info.small_machines and not machine.gpus, info.preference))
    advice = []
    if installed.isdisjoint(info.name for info in local):
        advice.append(f"no installed engine can load a model: {engine_info.install_hint(best)}")
    elif machine.gpus and best.name not in installed:
        advice.append(f"the {best.name} engine has a higher throughput on GPUs: {engine_info.install_hint(best)}")
    torch = next((part.versions["torch"] for part in machine.engines if "torch" in part.versions), "")
    if machine.gpus and torch.endswith("+cpu"):
        advice.append(f"torch {torch} can't use the GPUs; install a CUDA build of torch")
    return advice
