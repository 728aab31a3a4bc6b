"""SIGKILL at every fault point, once and repeatedly: each row ends exactly once, in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ledger_support import Coordinator, assert_complete, open_ledger

from penstock import faults
from penstock.faults import LEDGER_POINTS
from penstock.ledger import joining as tails

HERE = Path(__file__).parent
RUN = """
import sys
from pathlib import Path
from ledger_support import Coordinator, open_ledger
with open_ledger(Path(sys.argv[1])) as ledger:
    Coordinator(ledger, 90).run(batch_rows=30)
"""


def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(HERE), *sys.path])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=560,
    )


@pytest.mark.process
@pytest.mark.parametrize(("hits", "deaths"), [(1, 1), pytest.param(4, 3, marks=pytest.mark.slow)])
def test_every_fault_point_is_a_safe_place_to_die(tmp_path: Path, hits: int, deaths: int) -> None:
    """The entries of a run are four: epoch, two commits, the final one. deaths: in a row."""
    done = start(str(HERE / "ledger_kills.py"), str(tmp_path), str(hits), str(deaths))
    assert done.returncode == 0, done.stderr
    tally = json.loads(done.stdout)
    assert {point for point, deaths in tally.items() if deaths == 0} == set()
    assert set(tally) == set(LEDGER_POINTS)


@pytest.mark.process
def test_the_variable_arms_a_point_and_the_same_command_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = start("-c", RUN, str(out), PENSTOCK_FAULTPOINT="entry.linked:3")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert start("-c", RUN, str(out)).returncode == 0
    assert_complete(out, 90)


def test_points_are_hit_in_the_order_in_which_they_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.first_hits: list[str] = []
            self.hits_left = 0

        @property
        def name(self) -> Recorder:
            return self

        def __ne__(self, point: object) -> bool:
            if point not in self.first_hits:
                self.first_hits.append(str(point))
            return True

        __hash__ = None  # type: ignore[assignment]

    recorder = Recorder()
    monkeypatch.setattr(faults, "_trigger", recorder)
    monkeypatch.setattr(tails, "MAX_TAIL", 1)
    with open_ledger(tmp_path / "out") as ledger:
        coordinator = Coordinator(ledger, 20)
        coordinator.commit([*range(8), 15], partial=[coordinator.step_of(9)])
        coordinator.commit(coordinator.remaining(), final=True)
    assert set(recorder.first_hits) == set(LEDGER_POINTS) - {"commit.carried_written"}  # of phases that go on
