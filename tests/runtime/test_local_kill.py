"""Nothing of a replica outlives its coordinator, its host or its guardian."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.executors.guardian import KEEPER
from penstock.testing.executors import gone, parent_of

pytestmark = pytest.mark.process

COORDINATOR = str(Path(__file__).parent / "stand_in_coordinator.py")
LIMIT_S = 30.0  # on any machine; `bench/replica_killed.py` says how soon

Family = tuple["subprocess.Popen[str]", list[int]]


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    """A coordinator, and its replica: keeper, host, two children and a daemon that left the session."""
    command = [sys.executable, COORDINATOR, str(tmp_path)]
    coordinator = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    pids: list[int] = []
    try:
        assert coordinator.stdout is not None
        line = coordinator.stdout.readline()
        assert line.split() and line.replace(" ", "").strip().isdecimal(), line + coordinator.stdout.read()
        pids += map(int, line.split())
        assert len(pids) == 5
        assert not any(map(gone, pids))
        yield coordinator, pids
    finally:
        coordinator.kill()
        coordinator.wait()
        if coordinator.stdout is not None:
            coordinator.stdout.close()
        for pid in pids:
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)


def left_after(pids: list[int], limit_s: float) -> list[int]:
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s and not all(map(gone, pids)):
        time.sleep(0.01)
    return [pid for pid in pids if not gone(pid)]


def shared_memory(folder: Path) -> Path:
    """What the host has made, and only its children know of."""
    return Path("/dev/shm") / (folder / "daemon-shared").read_text()


def nothing_left(pids: list[int], folder: Path) -> bool:
    """Whether all of these end, and what they had in shared memory with them: Python's own account of it ends last."""
    assert left_after(pids, LIMIT_S) == []
    until_s = time.monotonic() + LIMIT_S
    while shared_memory(folder).exists() and time.monotonic() < until_s:
        time.sleep(0.01)
    return not shared_memory(folder).exists()


def test_a_coordinator_killed_leaves_nothing(family: Family, tmp_path: Path) -> None:
    coordinator, pids = family
    assert shared_memory(tmp_path).exists()
    coordinator.kill()
    assert nothing_left(pids, tmp_path)


def test_a_host_killed_leaves_no_child(family: Family, tmp_path: Path) -> None:
    coordinator, pids = family
    os.kill(pids[1], signal.SIGKILL)
    assert nothing_left(pids, tmp_path)
    assert coordinator.poll() is None


@pytest.mark.parametrize("who", ["keeper", "guardian"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_guardian_that_ends_takes_everything_along(family: Family, who: str, number: int, tmp_path: Path) -> None:
    """Asked to, or killed; and its keeper."""
    _, pids = family
    os.kill(pids[0] if who == "keeper" else parent_of(pids[1]), number)
    assert nothing_left(pids, tmp_path)


def test_all_of_penstock_killed_at_once_leaves_nothing(family: Family, tmp_path: Path) -> None:
    """As `pkill -9 -f penstock` does: coordinator, guardian and host, by what their command lines say."""
    coordinator, pids = family
    keeper, host, *_ = pids
    ours = {coordinator.pid, parent_of(host), host}
    assert Path(f"/proc/{keeper}/comm").read_text().strip() == KEEPER.decode()
    assert Path(f"/proc/{keeper}/cmdline").read_bytes().strip(b"\0") == KEEPER
    for pid in ours:
        os.kill(pid, signal.SIGSTOP)  # so that none of them has a moment to act in
    for pid in ours:
        os.kill(pid, signal.SIGKILL)
    coordinator.wait()
    assert nothing_left(pids, tmp_path)


def test_the_terminals_interrupt_reaches_only_the_coordinator(family: Family) -> None:
    coordinator, pids = family
    coordinator.send_signal(signal.SIGINT)
    coordinator.wait(LIMIT_S)
    assert left_after(pids, LIMIT_S) == []
