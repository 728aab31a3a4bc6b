"""A replica far behind its like is started anew; where that does not mend it, the run goes on without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from run_support import dead, output, pipeline, summary, write_rows

from penstock.core.shape import DispatchLimits
from penstock.executors.base import Launch
from penstock.planning import launches
from penstock.runtime.run.api import RunOptions
from penstock.runtime.run.api import run as run_here
from penstock.spec.load import load_pipeline

pytestmark = pytest.mark.process

ROWS = 900


def test_a_slow_replica_is_replaced_and_then_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path, ROWS)
    path = pipeline(tmp_path, ms_per_row=20, replicas=2)
    launch = launches._launch

    def one_is_slow(replica: Any, config: Any, logs: Path) -> Launch:
        made = launch(replica, config, logs)
        if replica.id == "writer-1":
            slow = replace(config, engine_options={**config.engine_options, "ms_per_row": 400})
            return replace(made, config=slow)
        return made

    monkeypatch.setattr(launches, "_launch", one_is_slow)
    hasty = DispatchLimits(slow_window_s=1.0, slow_answers=3, slow_turns=0)
    monkeypatch.setattr(launches, "DispatchLimits", lambda: hasty)
    result = run_here(load_pipeline(path.read_text(), path.name), RunOptions(display="none"))
    assert result.exit_code == 0, result.facts.reason
    assert [row["id"] for row in output(tmp_path)] == list(range(ROWS)) and not dead(tmp_path)
    log = (tmp_path / "out" / "logs" / "coordinator.log").read_text()
    assert log.count("writer-1 is slow and is restarted: throughput is ") == 2, log
    assert "writer-1 is not restarted again" in log and "writer-0 is" not in log
    fast, slow = summary(tmp_path)["models"]["writer"]["replicas"]
    assert (fast["restarts"], slow["restarts"]) == (0, 1) and slow["rows"] < ROWS / 10
