"""Real processes that are killed, hung, stopped and starved in mid-run; every row ends once all the same."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_support import (
    catch,
    committed,
    dead,
    end_of,
    errors,
    everything_below,
    output,
    pipeline,
    processes_of,
    run,
    start,
    summary,
    wait_until,
    write_rows,
)

from command_server import Command, run_command
from penstock.cli.main import main as command_line
from penstock.core.core import Core
from penstock.core.events import Event
from penstock.runtime.driver import Driver
from penstock.testing.executors import parent_of

pytestmark = pytest.mark.process

ROWS = 400


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_rows(folder, ROWS)
    pipeline(folder)
    assert run(folder) == 0, errors(folder)
    return output(folder)


def in_mid_run(folder: Path, *, ms_per_row: float, **model: Any) -> Command:
    """A run that stands still after its first commits, with half of its rows before it at the least."""

    def begin(slower: int) -> Command:
        pipeline(folder, ms_per_row=ms_per_row * slower, **model)
        return start(folder)

    return catch(folder, begin, lambda: 40 < committed(folder) < ROWS / 2, "some commits")


def test_a_run_answers_every_row_in_order(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS)
    pipeline(tmp_path, ms_per_row=1)
    assert run(tmp_path) == 0, errors(tmp_path)
    assert [row["id"] for row in output(tmp_path)] == list(range(ROWS))
    figures = summary(tmp_path)
    assert figures["rows"] == {"in": ROWS, "out": ROWS, "dead": 0, "filtered": 0, "reused": 0}
    assert 1 <= figures["models"]["writer"]["loads"] <= 2  # one may not be up yet when the last row has its answer
    assert sum(replica["rows"] for replica in figures["models"]["writer"]["replicas"]) == ROWS


def test_kill_the_coordinator_and_go_on(tmp_path: Path, undisturbed: list[dict[str, object]]) -> None:
    write_rows(tmp_path, ROWS)
    process = in_mid_run(tmp_path, ms_per_row=10)
    process.kill()
    process.wait()
    wait_until(lambda: not everything_below(tmp_path), "the replicas to be gone")
    done = committed(tmp_path)
    assert done < ROWS
    pipeline(tmp_path)
    assert run(tmp_path) == 0, errors(tmp_path)
    assert output(tmp_path) == undisturbed
    assert summary(tmp_path)["rows"]["reused"] == done
    assert sum(r["rows"] for r in summary(tmp_path)["models"]["writer"]["replicas"]) == ROWS - done


def test_a_finished_run_loads_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path, 50)
    pipeline(tmp_path)
    assert run(tmp_path) == 0
    before = output(tmp_path)
    assert run(tmp_path) == 0, errors(tmp_path)
    figures = summary(tmp_path)
    assert figures["models"]["writer"]["loads"] == 0
    assert figures["rows"] == {"in": 50, "out": 50, "dead": 0, "filtered": 0, "reused": 50}
    assert output(tmp_path) == before


def test_kill_a_host_in_mid_run(tmp_path: Path, undisturbed: list[dict[str, object]]) -> None:
    write_rows(tmp_path, ROWS)
    process = in_mid_run(tmp_path, ms_per_row=20)  # long enough for the second start, also on a busy machine
    os.kill(min(processes_of(tmp_path)), signal.SIGKILL)
    process.send_signal(signal.SIGCONT)
    assert end_of(process, tmp_path) == 0, errors(tmp_path)
    assert output(tmp_path) == undisturbed
    assert sum(replica["restarts"] for replica in summary(tmp_path)["models"]["writer"]["replicas"]) == 1
    assert "SIGKILL" in (tmp_path / "out" / "logs" / "coordinator.log").read_text(), "the run's log tells why"


def test_kill_a_host_beneath_a_stopped_guardian(tmp_path: Path, undisturbed: list[dict[str, object]]) -> None:
    """Its connection ends, and its guardian, who is to tell that nothing of it is left, says nothing."""
    write_rows(tmp_path, ROWS)
    process = in_mid_run(tmp_path, ms_per_row=20)
    host = min(processes_of(tmp_path))
    os.kill(parent_of(host), signal.SIGSTOP)
    os.kill(host, signal.SIGKILL)
    process.send_signal(signal.SIGCONT)
    assert end_of(process, tmp_path) == 0, errors(tmp_path)
    assert output(tmp_path) == undisturbed
    assert sum(replica["restarts"] for replica in summary(tmp_path)["models"]["writer"]["replicas"]) == 1
    assert not everything_below(tmp_path)


def test_a_replica_that_hangs_is_replaced(tmp_path: Path) -> None:
    write_rows(tmp_path, 60)
    pipeline(tmp_path, ms_per_row=2, progress_timeout_s=1.0, hang_on="what is 30?", max_dead=1)
    assert run(tmp_path) == 0, errors(tmp_path)
    assert [row["id"] for row in output(tmp_path)] == [number for number in range(60) if number != 30]
    assert [(row["code"], row["row"]) for row in dead(tmp_path)] == [("engine_crash", 30)]


def test_a_stopped_host_is_replaced(tmp_path: Path, undisturbed: list[dict[str, object]]) -> None:
    write_rows(tmp_path, ROWS)
    process = in_mid_run(tmp_path, ms_per_row=5, progress_timeout_s=1.5)
    os.kill(min(processes_of(tmp_path)), signal.SIGSTOP)
    process.send_signal(signal.SIGCONT)
    assert end_of(process, tmp_path) == 0, errors(tmp_path)
    assert output(tmp_path) == undisturbed


def test_a_host_that_is_stopped_while_it_loads_is_replaced(
    tmp_path: Path, undisturbed: list[dict[str, object]]
) -> None:
    write_rows(tmp_path, ROWS)

    def begin(slower: int) -> Command:
        pipeline(tmp_path, replicas=1, load_ms=3000 * slower, progress_timeout_s=1)
        return start(tmp_path)

    process = catch(tmp_path, begin, lambda: processes_of(tmp_path) and not committed(tmp_path), "the host")
    os.kill(next(iter(processes_of(tmp_path))), signal.SIGSTOP)
    process.send_signal(signal.SIGCONT)
    assert end_of(process, tmp_path) == 0, errors(tmp_path)
    assert output(tmp_path) == undisturbed
    (replica,) = summary(tmp_path)["models"]["writer"]["replicas"]
    assert replica["restarts"] == 1


def test_a_row_that_kills_its_replica_dies_alone(tmp_path: Path) -> None:
    write_rows(tmp_path, 200)
    pipeline(tmp_path, slots=8, ms_per_row=5, crash_on="what is 77?", max_dead=1)
    assert run(tmp_path) == 0, errors(tmp_path)
    assert [row["id"] for row in output(tmp_path)] == [number for number in range(200) if number != 77]
    on_dead_row = dead(tmp_path)
    assert [(row["code"], row["row"], row["step"], row["path"]) for row in on_dead_row] == [
        ("engine_crash", 77, "generate", [])
    ]
    assert "SIGKILL" in on_dead_row[0]["message"]


@pytest.mark.parametrize("rows", [173, pytest.param(ROWS, marks=pytest.mark.slow)])
def test_several_rows_that_kill_die_alone_and_the_others_beside_them_do_not(tmp_path: Path, rows: int) -> None:
    write_rows(tmp_path, rows)
    pipeline(tmp_path, crash_on="what is 17", slots=32, ms_per_row=20, replicas=2)  # 17, and 170 to 179
    assert run(tmp_path, "--set", "max_dead=20") == 0, errors(tmp_path)
    guilty = [17, *range(170, min(180, rows))]
    assert sorted(row["row"] for row in dead(tmp_path)) == guilty
    assert {row["code"] for row in dead(tmp_path)} == {"engine_crash"}
    assert [row["id"] for row in output(tmp_path)] == [number for number in range(rows) if number not in guilty]


def test_a_replica_that_runs_out_of_memory_takes_less_at_a_time(tmp_path: Path) -> None:
    write_rows(tmp_path, 60)
    # A row takes 19 tokens: three at a time fit, and the mock says that it has eight slots.
    pipeline(tmp_path, oom_over_tokens=60, slots=8, ms_per_row=20, replicas=1)
    assert run(tmp_path) == 0, errors(tmp_path)
    assert len(output(tmp_path)) == 60 and not dead(tmp_path)
    (replica,) = summary(tmp_path)["models"]["writer"]["replicas"]
    assert 1 <= replica["restarts"] <= 5
    log = (tmp_path / "out" / "logs" / "coordinator.log").read_text()
    assert "ran out of memory; now limited to 75% of its capacity" in log


def test_a_row_that_alone_takes_all_memory_dies_and_the_run_goes_on(tmp_path: Path) -> None:
    rows = [{"id": number, "question": "word " * (100 if number == 3 else 2)} for number in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pipeline(tmp_path, oom_over_tokens=60, slots=1, ms_per_row=5, replicas=1)
    assert run(tmp_path, "--set", "max_dead=2") == 0, errors(tmp_path)
    (on_dead_row,) = dead(tmp_path)
    assert on_dead_row["row"] == 3 and "out of memory 2 times while it ran alone" in on_dead_row["message"]
    assert len(output(tmp_path)) == 11


def test_a_refused_row_is_dead_and_not_retried(tmp_path: Path) -> None:
    write_rows(tmp_path, 100)
    pipeline(tmp_path, fail_on="what is 5?")
    assert run(tmp_path) == 0, errors(tmp_path)
    (on_dead_row,) = dead(tmp_path)
    assert (on_dead_row["code"], on_dead_row["row"], on_dead_row["attempts"]) == ("refused", 5, 1)
    assert on_dead_row["input"] == '{"id": 5, "question": "what is 5?"}'
    assert summary(tmp_path)["rows"] == {"in": 100, "out": 99, "dead": 1, "filtered": 0, "reused": 0}


def test_too_many_dead_ends_the_run_and_a_higher_limit_goes_on(tmp_path: Path) -> None:
    write_rows(tmp_path, 300)
    pipeline(tmp_path, fail_on="1?", max_dead=5)
    assert run(tmp_path) == 3
    assert summary(tmp_path)["status"] == "too_many_dead"
    pipeline(tmp_path, fail_on="1?", max_dead=300)
    assert run(tmp_path) == 0, errors(tmp_path)
    died = {row["row"] for row in dead(tmp_path)}
    assert died == {number for number in range(300) if number % 10 == 1}
    assert len(output(tmp_path)) == 300 - len(died)


def test_interrupt_once_stops_in_good_order(tmp_path: Path, undisturbed: list[dict[str, object]]) -> None:
    write_rows(tmp_path, ROWS)
    process = in_mid_run(tmp_path, ms_per_row=20)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    assert end_of(process, tmp_path) == 75
    assert summary(tmp_path)["status"] == "stopped"
    assert not everything_below(tmp_path)
    published = [row["id"] for row in output(tmp_path)]
    assert published == list(range(len(published))) and published
    pipeline(tmp_path)
    assert run(tmp_path) == 0, errors(tmp_path)
    assert output(tmp_path) == undisturbed


def test_interrupt_twice_stops_at_once(tmp_path: Path, undisturbed: list[dict[str, object]]) -> None:
    write_rows(tmp_path, ROWS)
    pipeline(tmp_path, ms_per_row=60_000)
    process = start(tmp_path)
    wait_until(lambda: '"in_flight":2' in errors(tmp_path), "requests in flight")
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: '"stopping"' in errors(tmp_path), "the run to stop")
    process.send_signal(signal.SIGINT)
    assert end_of(process, tmp_path) == 130
    assert not everything_below(tmp_path)
    pipeline(tmp_path)
    assert run(tmp_path) == 0, errors(tmp_path)
    assert output(tmp_path) == undisturbed


def test_python_steps_expand_filter_and_fail_by_row(tmp_path: Path) -> None:
    write_rows(tmp_path, 40)
    (tmp_path / "own_steps.py").write_text(
        "def halves(row):\n    return [{'half': 0}, {'half': 1}]\n"
        "def length(row):\n    if row['id'] == 3:\n        raise ValueError('three')\n"
        "    return {'length': len(row['answer'])}\n"
    )
    steps = [
        {"filter": {"expr": "id % 2 == 1"}},
        {"expand": {"function": "own_steps:halves"}},
        {"generate": {"model": "writer", "prompt": "{{ id }}/{{ half }}", "output": "answer", "max_tokens": 4}},
        {"map": {"function": "own_steps:length"}},
    ]
    pipeline(tmp_path, steps, max_dead=1)
    assert run(tmp_path) == 0, errors(tmp_path)
    keys = [(row["id"], row["half"]) for row in output(tmp_path)]
    assert keys == [(number, half) for number in range(1, 40, 2) if number != 3 for half in (0, 1)]
    assert [(row["row"], row["path"], row["code"]) for row in dead(tmp_path)] == [
        (3, [0], "function_error"),
        (3, [1], "function_error"),
    ]
    figures = summary(tmp_path)
    assert figures["rows"] == {"in": 40, "out": 38, "dead": 2, "filtered": 20, "reused": 0}
    assert figures["steps"]["map"] == {"in": 40, "out": 38, "dead": 2}


def test_an_engine_that_can_not_load_ends_the_run_with_its_cause(tmp_path: Path) -> None:
    write_rows(tmp_path, 10)
    path = pipeline(tmp_path)
    path.write_text(path.read_text().replace("ref: mock:test", "ref: ./nowhere\n    engine: transformers"))
    code = run(tmp_path)
    text = errors(tmp_path)
    assert code in (1, 2), text
    assert "nowhere" in text and "Traceback" not in text, text


def test_another_terminal_sees_what_each_replica_does(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS)
    pipeline(tmp_path, ms_per_row=500, fail_on="what is 3?")
    process = start(tmp_path)

    def status() -> dict[str, Any]:
        found = run_command("status", "out", "--json", folder=tmp_path, limit_s=240)
        return json.loads(found.stdout) if found.returncode == 0 else {}

    wait_until(lambda: any(each["in_flight"] for each in status().get("replicas", ())), "a replica at work")
    wait_until(lambda: status()["causes"], "the dead row")
    told = status()
    assert [each["id"] for each in told["replicas"]] == ["writer-0", "writer-1"]
    assert told["examples"]["generate refused"] == "the prompt contains '[row]' (fail_on)"
    process.send_signal(signal.SIGINT)
    end_of(process, tmp_path)
    assert status()["replicas"] == [], "it is not at work any more"


def test_a_broken_invariant_ends_the_run_with_its_story(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planted in the flow of a run at work, found when its loop is idle; what was committed stays, and it continues."""
    write_rows(tmp_path, 40)
    pipeline(tmp_path, ms_per_row=50, slots=1, commit_every_s=0.1)
    monkeypatch.chdir(tmp_path)

    class Planted(Driver):
        def run(self, events: list[Event], watch: Callable[[float], None] | None = None) -> None:
            def break_it(now: float) -> None:
                assert watch is not None and isinstance(self._machine, Core)
                watch(now)
                if self._machine.flow.tally.ended_sources == 4:
                    self._machine.flow.open_bytes += 17

            super().run(events, break_it)

    with monkeypatch.context() as patch:
        patch.setattr("penstock.runtime.run.invocation.Driver", Planted)
        patch.setattr("penstock.runtime.watch.integrity.EVERY_S", 0.01)
        assert command_line(["run", "pipeline.yaml", "--display", "none"]) == 1
    said = capsys.readouterr().err
    assert "bytes are counted as open" in said and "The story (flow):" in said and "TasksDone(" in said
    assert summary(tmp_path)["status"] == "failed"
    assert "The story (flow):" in (tmp_path / "out" / "logs" / "coordinator.log").read_text()
    assert run(tmp_path) == 0
    assert len(output(tmp_path)) == 40
