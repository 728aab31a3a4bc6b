"""Processes that an earlier start of a run has left behind on this machine, though all that were to end them are gone.

A guardian ends what is below it, and its keeper does where that was killed (see `guardian`). Killing the keeper
too, as with a whole tree of processes but for an engine's own child, leaves that child behind, with the memory that it
holds. It still writes to the log of its replica, as it was born to; by that it is found.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from penstock.executors.guardian import KEEPER

__all__ = ["end_leftovers", "leftovers"]

END_LIMIT_S = 10.0  # a process that survives SIGKILL this long hangs in the kernel, with its driver
_STREAMS = (1, 2)


def leftovers(logs: list[Path]) -> list[int]:
    """Processes of this machine whose standard output and standard error are one of `logs`, those of replicas, and
    that have no keeper above them to end them.

    Never this process, nor those above it.
    """
    files = {_file(log) for log in logs} - {None}
    if not files:
        return []
    own = set(_line(os.getpid()))
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in own:
            streams = {_file(Path(f"/proc/{name}/fd/{stream}")) for stream in _STREAMS}
            if len(streams) == 1 and streams <= files and not _is_kept(int(name)):
                found.append(int(name))
    return found


def end_leftovers(logs: list[Path]) -> list[str]:
    """Kill them, and whatever they start meanwhile; "PID NAME" of each that was there. Returns when they are gone, or
    after `END_LIMIT_S`."""
    seen: dict[int, str] = {}
    until_s = time.monotonic() + END_LIMIT_S
    while (found := leftovers(logs)) and time.monotonic() < until_s:
        for pid in found:
            seen.setdefault(pid, _name(pid))
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return [f"{pid} {name}".strip() for pid, name in sorted(seen.items())]


def _is_kept(pid: int) -> bool:
    return any(_name(each) == KEEPER.decode() for each in _line(pid))


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def _file(path: Path) -> tuple[int, int] | None:
    """The identity of the file that a path leads to, or None: no such file, no such process, or another user's."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _line(pid: int) -> list[int]:
    """This process and all above it."""
    found = [pid]
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
        found.append(pid)
    return found
