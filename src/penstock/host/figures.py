"""Utilization of a replica, reported by its host with the answers."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.host.meter import DeviceMeter
from penstock.protocol.messages import Load

__all__ = ["Figures", "Occupancy", "Turnaround"]


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


class Figures:
    """All figures of one replica, as one `Load`. Times are of the host's monotonic clock."""

    def __init__(self, devices: Sequence[str] = (), cores: int = 1) -> None:
        self.occupancy = Occupancy(1, 0.0)
        self.turnaround = Turnaround()
        self._meter = DeviceMeter(devices, cores)

    def start(self, slots: int, now_s: float) -> None:
        """The replica is ready: cumulative figures count from here."""
        self.occupancy = Occupancy(slots, now_s)

    def load(self, executing: int, waiting: int, progress: int, now_s: float) -> Load:
        self.occupancy.change(executing, now_s)
        device = self._meter.read(now_s)
        return Load(
            executing=executing,
            waiting=waiting,
            busy_s=self.occupancy.busy_s,
            fill_s=self.occupancy.fill_s,
            progress=progress,
            turnaround_s=self.turnaround.at(now_s),
            sent_at=now_s,
            device_bytes=device.bytes,
            device_use=device.use,
        )
