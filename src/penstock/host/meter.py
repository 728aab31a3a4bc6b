"""Memory and use of a replica's devices: by NVML on GPUs, else by the figures of its processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["DeviceMeter", "Reading", "tree_figures"]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Reading(NamedTuple):
    """bytes in use, 0 where nothing can be known; use: share of the devices' time, 0 to 1."""

    bytes: int
    use: float


class DeviceMeter:
    """Refreshed once a second.

    devices  GPUs by NVML's index or by UUID, as in CUDA_VISIBLE_DEVICES; "gpu:" and a node before it do not matter
    cores    where there are no GPUs: how many cores full use is
    """

    PERIOD_S = 1.0

    def __init__(self, devices: Sequence[str], cores: int = 1) -> None:
        self._gpus = [device.rpartition("/")[2].removeprefix("gpu:") for device in devices]
        self._cores = max(1, cores)
        self._handles: list[object] | None = None
        self._read_at_s = float("-inf")
        self._cpu_s = 0.0
        self._reading = Reading(0, 0.0)

    def read(self, now_s: float) -> Reading:
        """At most a second old."""
        elapsed_s = now_s - self._read_at_s
        if elapsed_s >= self.PERIOD_S:
            self._read_at_s = now_s
            self._reading = self._of_gpus() if self._gpus else self._of_processes(elapsed_s)
        return self._reading

    def _of_processes(self, elapsed_s: float) -> Reading:
        before_s = self._cpu_s
        size_bytes, self._cpu_s = tree_figures(os.getpid())
        use = (self._cpu_s - before_s) / elapsed_s / self._cores  # 0 the first time, when elapsed is endless
        return Reading(size_bytes, min(1.0, max(0.0, use)))

    def _of_gpus(self) -> Reading:
        try:
            import pynvml

            if self._handles is None:
                pynvml.nvmlInit()
                self._handles = [_handle(pynvml, gpu) for gpu in self._gpus]
            used = sum(int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in self._handles)
            shares = [pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100 for handle in self._handles]
            return Reading(used, sum(shares) / len(shares))
        except Exception:  # a figure for the display: whatever NVML has against it, the replica works on
            self._gpus = []
            return Reading(tree_figures(os.getpid())[0], 0.0)


def _handle(nvml: Any, gpu: str) -> object:
    return nvml.nvmlDeviceGetHandleByIndex(int(gpu)) if gpu.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(gpu)


def tree_figures(pid: int) -> tuple[int, float]:
    """Resident memory and CPU time (bytes, seconds) of a process and all that live below it.

    Pages that processes share count once for each.
    """
    total_bytes, ticks = 0, 0
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        try:
            with open(f"/proc/{current}/statm", "rb") as file:
                total_bytes += int(file.read().split()[1]) * _PAGE_BYTES
            with open(f"/proc/{current}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            waiting += _children(current)
        except (OSError, IndexError, ValueError):
            continue  # it ended while we looked
    return total_bytes, ticks / _TICKS_PER_S


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += [int(child) for child in file.read().split()]
        except OSError:
            continue  # the thread ended, or the kernel has no such file
    return found
