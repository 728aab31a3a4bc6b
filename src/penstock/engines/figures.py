"""How busy a replica is: the figures that a host reports beside its answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from penstock.engines.messages import Load

__all__ = ["DeviceMeter", "Figures", "Occupancy", "Turnaround", "tree_bytes"]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Occupancy:
    """Time with at least one request executing, and the integral of the share of slots in use.

    The caller tells every change of the number executing with the time at which it saw it; both figures grow from
    the first request on. `slots` bounds the share at 1.
    """

    def __init__(self, slots: int, now_s: float) -> None:
        self._slots = max(1, slots)
        self._since_s = now_s
        self._executing = 0
        self.busy_s = 0.0
        self.fill_s = 0.0

    def change(self, executing: int, now_s: float) -> None:
        """From `now_s` on, this many requests are executing."""
        if self._executing and now_s > self._since_s:
            elapsed_s = now_s - self._since_s
            self.busy_s += elapsed_s
            self.fill_s += elapsed_s * min(1.0, self._executing / self._slots)
        self._since_s = now_s
        self._executing = executing


class Turnaround:
    """A decaying maximum of the time from sending answers to receiving the requests that replace them.

    Each stamp counts once: a second message that echoes it was sent later, and says nothing of the way back.
    """

    HALF_LIFE_S = 5.0  # long enough to remember a slow commit, short enough to forget a pause of the source

    def __init__(self) -> None:
        self._value_s = 0.0
        self._at_s = 0.0
        self._last_echo = 0.0

    def observe(self, echo: float, now_s: float) -> None:
        if echo <= self._last_echo:
            return
        self._last_echo = echo
        self._value_s = max(self.at(now_s), now_s - echo)
        self._at_s = now_s

    def at(self, now_s: float) -> float:
        return float(self._value_s * 0.5 ** ((now_s - self._at_s) / self.HALF_LIFE_S))


class DeviceMeter:
    """Memory in use on the replica's GPUs, or by its processes where it has none. Refreshed once a second.

    devices: GPUs by NVML's index or by UUID, as in CUDA_VISIBLE_DEVICES; "gpu:" and a node before it do not matter.
    """

    PERIOD_S = 1.0

    def __init__(self, devices: Sequence[str]) -> None:
        self._gpus = [device.rpartition("/")[2].removeprefix("gpu:") for device in devices]
        self._handles: list[object] | None = None
        self._read_at_s = float("-inf")
        self._bytes = 0

    def read(self, now_s: float) -> int:
        """Bytes, at most a second old; 0 where nothing can be known."""
        if now_s - self._read_at_s >= self.PERIOD_S:
            self._read_at_s = now_s
            self._bytes = self._gpu_bytes() if self._gpus else tree_bytes(os.getpid())
        return self._bytes

    def _gpu_bytes(self) -> int:
        try:
            import pynvml

            if self._handles is None:
                pynvml.nvmlInit()
                self._handles = [_handle(pynvml, gpu) for gpu in self._gpus]
            return sum(int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in self._handles)
        except Exception:  # a figure for the display: whatever NVML has against it, the replica works on
            self._gpus = []
            return tree_bytes(os.getpid())


def _handle(nvml: Any, gpu: str) -> object:
    return nvml.nvmlDeviceGetHandleByIndex(int(gpu)) if gpu.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(gpu)


def tree_bytes(pid: int) -> int:
    """Resident memory of a process and all below it; pages that they share count once for each."""
    total = 0
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        try:
            with open(f"/proc/{current}/statm", "rb") as file:
                total += int(file.read().split()[1]) * _PAGE_BYTES
            waiting += _children(current)
        except (OSError, IndexError, ValueError):
            continue  # it ended while we looked
    return total


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += [int(child) for child in file.read().split()]
        except OSError:
            continue  # the thread ended, or the kernel has no such file
    return found


class Figures:
    """All figures of one replica, as one `Load`. Times are of the host's monotonic clock."""

    def __init__(self, devices: Sequence[str] = ()) -> None:
        self.occupancy = Occupancy(1, 0.0)
        self.turnaround = Turnaround()
        self._meter = DeviceMeter(devices)

    def start(self, slots: int, now_s: float) -> None:
        """The replica is ready: cumulative figures count from here."""
        self.occupancy = Occupancy(slots, now_s)

    def load(self, executing: int, waiting: int, progress: int, now_s: float) -> Load:
        self.occupancy.change(executing, now_s)
        return Load(
            executing=executing,
            waiting=waiting,
            busy_s=self.occupancy.busy_s,
            fill_s=self.occupancy.fill_s,
            progress=progress,
            turnaround_s=self.turnaround.at(now_s),
            sent_at=now_s,
            device_bytes=self._meter.read(now_s),
        )
