"""What an engine has started, and every process that was to end it has not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_support import errors, everything_below, output, pipeline, run, start, wait_until, write_rows

from penstock.executors.guardian import descendants
from penstock.executors.leftovers import end_leftovers, leftovers
from penstock.testing.executors import gone, parent_of

pytestmark = pytest.mark.process

WITH_A_CHILD = """
import os, subprocess, sys, time
def mapped(row):
    if os.path.exists("child"):
        return {"x": row["id"]}
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
    with open("child.new", "w") as file:
        file.write(str(child.pid))
    os.rename("child.new", "child")
    time.sleep(3600)
"""


@pytest.fixture
def child(tmp_path: Path) -> Iterator[int]:
    """An engine's child, alone: a run over `tmp_path`, and all of Penstock below it, killed at one moment."""
    write_rows(tmp_path, 20)
    (tmp_path / "own.py").write_text(WITH_A_CHILD)
    pipeline(tmp_path, [{"map": {"function": "own:mapped"}}])
    process = start(tmp_path)
    wait_until((tmp_path / "child").exists, "the engine's child")
    child = int((tmp_path / "child").read_text())
    doomed = [process.pid, *(pid for pid in descendants(process.pid) if pid != child)]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in doomed:
            os.kill(pid, number)
    process.wait()
    wait_until(lambda: all(map(gone, doomed)), "all of Penstock to be gone")
    assert not gone(child)
    yield child
    if not gone(child):
        os.kill(child, signal.SIGKILL)


def test_the_next_start_ends_what_was_left_behind(tmp_path: Path, child: int) -> None:
    assert run(tmp_path) == 0, errors(tmp_path)
    assert gone(child)
    told = (tmp_path / "out" / "logs" / "coordinator.log").read_text()
    assert "1 process left behind by an earlier start of this run, stopped now" in told
    assert str(child) in told
    assert [row["x"] for row in output(tmp_path)] == list(range(20))


def test_a_folder_that_was_moved_is_known_by_its_logs(tmp_path: Path, child: int) -> None:
    (tmp_path / "out").rename(tmp_path / "moved")
    assert run(tmp_path, "--out", "moved") == 0, errors(tmp_path)
    assert gone(child)


def test_who_has_a_keeper_or_only_reads_a_log_is_left_alone(tmp_path: Path) -> None:
    """A retry may run beside a run, with the same logs."""
    write_rows(tmp_path, 20)
    pipeline(tmp_path, ms_per_row=500)
    process = start(tmp_path)
    wait_until(lambda: len(everything_below(tmp_path)) >= 6, "two replicas")
    logs = sorted((tmp_path / "out" / "logs").glob("*.log"))
    with subprocess.Popen(
        ["tail", "-f", *map(str, logs)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as tail:
        with logs[0].open("a") as log:  # a shell that writes there, and this test below it
            command = [sys.executable, "-c", "import time; time.sleep(3600)"]
            half = subprocess.Popen(command, stdout=log, stderr=subprocess.DEVNULL)
        assert leftovers(logs) == []
        process.kill()
        process.wait()
        wait_until(lambda: everything_below(tmp_path) == [half.pid], "the replicas to be gone")
        assert end_leftovers(logs) == []
        assert parent_of(tail.pid) == parent_of(half.pid) == os.getpid()
        for each in (tail, half):
            assert each.poll() is None
            each.kill()
        half.wait()
