"""Short forms of `make kills`, `make torture` and `make proxy`, in processes of their own: the first two fork."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

HERE = Path(__file__).parent


def told(script: str, *arguments: str) -> str:
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=560, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_every_fault_point_of_a_run_is_a_safe_place_to_die(every: int) -> None:
    assert "0 broken; never reached: none" in told("kill_matrix.py", "--once", "--every", str(every))


@pytest.mark.parametrize("most", [6, pytest.param(24, marks=pytest.mark.slow)])
def test_some_scenarios_at_random(most: int) -> None:
    tally = told("torture.py", "--minutes", "4", "--most", str(most), "--seed", "7000")
    assert f"{most} runs compared, 0 broken" in tally


def test_replies_that_are_repeated_delayed_swapped_and_dropped() -> None:
    tally = told("proxy.py", "--requests", "1400", "--seed", "1")
    assert "1400 requests, 0 wrong" in tally
    for kind in ("other", "repeated", "unproven", "taken, connection kept", "taken, connection closed"):
        assert kind in tally
