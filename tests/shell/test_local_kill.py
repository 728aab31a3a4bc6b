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

from penstock.testing.executors import gone

pytestmark = pytest.mark.process

COORDINATOR = str(Path(__file__).parent / "stand_in_coordinator.py")
LIMIT_S = 30.0  # on any machine; `bench/replica_killed.py` says how soon

Family = tuple["subprocess.Popen[str]", list[int]]


@pytest.fixture(params=["spawned", "forked"])
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Family]:
    """A coordinator, and its replica: guardian, host, two children and a daemon that left the session."""
    command = [sys.executable, COORDINATOR, str(tmp_path), request.param]
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


def test_a_coordinator_killed_leaves_nothing(family: Family, tmp_path: Path) -> None:
    coordinator, pids = family
    assert shared_memory(tmp_path).exists()
    coordinator.kill()
    assert left_after(pids, LIMIT_S) == []
    assert not shared_memory(tmp_path).exists()


def test_a_host_killed_leaves_no_child(family: Family, tmp_path: Path) -> None:
    coordinator, pids = family
    os.kill(pids[1], signal.SIGKILL)
    assert left_after(pids, LIMIT_S) == []
    assert not shared_memory(tmp_path).exists()
    assert coordinator.poll() is None


def test_a_guardian_asked_to_end_ends_everything(family: Family) -> None:
    _, pids = family
    os.kill(pids[0], signal.SIGTERM)
    assert left_after(pids, LIMIT_S) == []


def test_a_guardian_killed_takes_the_host_along(family: Family) -> None:
    _, pids = family
    os.kill(pids[0], signal.SIGKILL)
    assert left_after(pids[:2], LIMIT_S) == []


def test_the_terminals_interrupt_reaches_only_the_coordinator(family: Family) -> None:
    coordinator, pids = family
    coordinator.send_signal(signal.SIGINT)
    coordinator.wait(LIMIT_S)
    assert left_after(pids, LIMIT_S) == []
