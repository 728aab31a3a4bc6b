"""Locks on the GPUs of this machine: one file per GPU, so that two runs never use the same one.

A lock ends with its process, however that ends. NVML reports programs that are not Penstock, once they have loaded
something; a lease tells at once, and names the run.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from penstock.errors import PlanError

__all__ = ["DeviceLeases", "LeaseTaken"]

_MAX_HOLDER_BYTES = 4096


class LeaseTaken(PlanError):
    """Another run has taken a device meanwhile."""


def lease_folder() -> Path:
    """Private to the user; the same for all of the user's processes on this machine."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"penstock-{os.getuid()}" / "devices"


class DeviceLeases:
    """The devices that this process holds, by their UUIDs."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or lease_folder()
        self._held: dict[str, int] = {}  # uuid -> file descriptor

    def take(self, uuids: Iterable[str], holder: str) -> None:
        """Lock all of them, or none. holder: shown in messages of other runs. Raises LeaseTaken."""
        taken: list[str] = []
        for uuid in uuids:
            if uuid in self._held:
                continue
            file = self._open(uuid)
            if not _lock(file):
                other = _read(file)
                os.close(file)
                self.release(taken)
                raise LeaseTaken(f"GPU {uuid} was just taken by {other}; run again to use the remaining GPUs, or wait")
            os.ftruncate(file, 0)
            os.pwrite(file, holder.encode()[:_MAX_HOLDER_BYTES], 0)
            self._held[uuid] = file
            taken.append(uuid)

    def held_by_others(self, uuids: Sequence[str]) -> dict[str, str]:
        """The GPUs locked by another process, with its holder text."""
        found = {}
        for uuid in uuids:
            if uuid in self._held or not self._path(uuid).exists():
                continue
            file = self._open(uuid)
            try:
                if not _lock(file):
                    found[uuid] = _read(file)
            finally:
                os.close(file)
        return found

    def release(self, uuids: Iterable[str] | None = None) -> None:
        for uuid in list(self._held if uuids is None else uuids):
            os.close(self._held.pop(uuid))

    def _path(self, uuid: str) -> Path:
        return self._folder / re.sub(r"[^A-Za-z0-9_-]", "_", uuid)

    def _open(self, uuid: str) -> int:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path(uuid), flags, 0o600)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: int) -> str:
    return os.pread(file, _MAX_HOLDER_BYTES, 0).decode(errors="replace") or "another run"
