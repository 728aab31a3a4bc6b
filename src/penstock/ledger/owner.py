"""The owner of a run directory: advisory, so that two coordinators do not waste each other's work.

Safety does not rest on it (epochs do that, see manifest.py); it only has to be right about the usual cases: the owner
was killed on this host (continue immediately), it is alive (refuse), it is on another host (trust its heartbeat).
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from pathlib import Path

import msgspec

from penstock.errors import Fenced, RunOwned
from penstock.ledger.files import Files

__all__ = [
    "HEARTBEAT_LIMIT_S",
    "Owner",
    "OwnerRecord",
    "clock_ahead_s",
    "is_alive",
    "read_owner",
    "refuse_if_owned",
    "this_process",
]

# An owner on another host whose last heartbeat is older than this is taken to be dead.
HEARTBEAT_LIMIT_S = 60.0
# A heartbeat is written at most this often, whatever the caller does.
HEARTBEAT_EVERY_S = 5.0


class OwnerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A coordinator. `boot`, `namespace` and `started` tell its process from a later one with the same number.

    host        host name; `machine` is the id of its installation, "" where it has none
    boot        id of the kernel's boot; "" where not known
    namespace   of process numbers (containers have their own)
    started     start of the process, in the kernel's ticks since boot; 0 where not known
    heartbeat   wall clock, seconds
    """

    token: str
    epoch: int
    host: str
    machine: str
    boot: str
    namespace: str
    pid: int
    started: int
    heartbeat: float


def this_process(epoch: int) -> OwnerRecord:
    return OwnerRecord(
        token=secrets.token_hex(8),
        epoch=epoch,
        host=socket.gethostname(),
        machine=_line("/etc/machine-id"),
        boot=_line("/proc/sys/kernel/random/boot_id"),
        namespace=_link("/proc/self/ns/pid"),
        pid=os.getpid(),
        started=_started(os.getpid()) or 0,
        heartbeat=time.time(),
    )


def read_owner(files: Files, path: Path) -> OwnerRecord | None:
    """The owner on record; None where there is none or the record can't be read."""
    try:
        return msgspec.json.decode(files.read(path), type=OwnerRecord)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def is_alive(owner: OwnerRecord, now: float) -> bool:
    """Whether `owner` may still be at work at wall-clock time `now`."""
    here = (owner.host, owner.machine) == (socket.gethostname(), _line("/etc/machine-id"))
    if here and owner.boot != _line("/proc/sys/kernel/random/boot_id"):
        return False  # this host has booted since
    if here and owner.namespace == _link("/proc/self/ns/pid"):
        started = _started(owner.pid)
        return started is not None and started == owner.started
    return now - owner.heartbeat < HEARTBEAT_LIMIT_S


def clock_ahead_s(owner: OwnerRecord, now: float) -> float | None:
    """How far in the future the last heartbeat of a process elsewhere is dated, in seconds, where that is too far for
    its age to tell whether the process is alive; else None. It is then taken to be alive: to refuse costs a command,
    to be wrong costs the work of two coordinators."""
    ahead = owner.heartbeat - now
    return ahead if ahead > HEARTBEAT_LIMIT_S and not _is_here(owner) else None


def _is_here(owner: OwnerRecord) -> bool:
    """Whether its process can be looked at from this one."""
    here = (owner.host, owner.machine) == (socket.gethostname(), _line("/etc/machine-id"))
    return here and owner.namespace == _link("/proc/self/ns/pid")


def refuse_if_owned(owner: OwnerRecord | None, out_dir: Path, now: float) -> None:
    """Raise RunOwned when another coordinator is at work on the run."""
    if owner is None or not is_alive(owner, now):
        return
    ahead = clock_ahead_s(owner, now)
    if ahead is not None:
        raise RunOwned(
            f"process {owner.pid} on host {owner.host} may still own this run: its last heartbeat is dated "
            f"{ahead:,.0f} s in the future, so the clocks of the two hosts differ and its age is unknown. "
            "If that process is running, wait for it or stop it; if it has exited, take over the run with --takeover.",
            where=str(out_dir),
        )
    age = max(0.0, now - owner.heartbeat)
    raise RunOwned(
        f"process {owner.pid} on host {owner.host} owns this run (last heartbeat {age:.0f} s ago). "
        "Wait for it, stop it, or take over the run with --takeover.",
        where=str(out_dir),
    )


class Owner:
    """Our own claim on a run directory."""

    def __init__(self, record: OwnerRecord, path: Path, files: Files) -> None:
        self.record = record
        self._path = path
        self._files = files

    @property
    def token(self) -> str:
        return self.record.token

    def claim(self) -> None:
        """Put our record in place of whatever stood there. Only after our epoch entry is durable."""
        self._files.replace(self._path, msgspec.json.encode(self.record))

    def due(self, now: float) -> bool:
        """Whether it is time for a heartbeat."""
        return not 0 <= now - self.record.heartbeat < HEARTBEAT_EVERY_S

    def beat(self, now: float) -> None:
        """Renew the heartbeat. Raises Fenced when a newer coordinator has claimed the run."""
        self.check()
        self.record = msgspec.structs.replace(self.record, heartbeat=now)
        try:
            self.claim()
        except OSError:
            pass  # it only advises; a disk that is full or broken stops the next commit, with its cause

    def check(self) -> None:
        owner = read_owner(self._files, self._path)
        if owner is not None and owner.epoch > self.record.epoch:
            raise Fenced(
                f"process {owner.pid} on host {owner.host} has taken over this run; "
                "further work of this process would be discarded.",
                where=str(self._path.parent.parent),
            )

    def release(self) -> None:
        """Take our record away; another's stays."""
        owner = read_owner(self._files, self._path)
        if owner is not None and owner.token == self.token:
            self._files.unlink(self._path)


def _line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """Start of a live process in ticks since boot; None where there is none, or it has ended and is unreaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
