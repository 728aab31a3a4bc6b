"""The commands that run something, as a person would: whole processes, the mock engine, the packaged demo."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from command_server import run_command

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
TIME_LIMIT_S = 240


def penstock(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run_command(*argv, folder=cwd, limit_s=TIME_LIMIT_S)


def write_pipeline(folder: Path, *, rows: int = 20, **options: Any) -> None:
    lines = [json.dumps({"id": i, "question": f"question {i}"}) for i in range(rows)]
    (folder / "questions.jsonl").write_text("\n".join(lines))
    (folder / "pipeline.yaml").write_text(
        f"""
models:
  writer: {{ref: "mock:writer", replicas: 2, engine_options: {json.dumps(options)}}}
source: questions.jsonl
steps:
  - generate: {{model: writer, prompt: "Answer {{{{ question }}}}", output: answer, max_tokens: 4}}
sink: out
"""
    )


def test_run_then_the_same_command_again(tmp_path: Path) -> None:
    write_pipeline(tmp_path)
    first = penstock("run", "pipeline.yaml", "--json", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    summary = json.loads(first.stdout)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["rows"] == {"in": 20, "out": 20, "dead": 0, "filtered": 0, "reused": 0}
    assert [replica["id"] for replica in summary["models"]["writer"]["replicas"]] == ["writer-0", "writer-1"]
    assert "done in " in first.stderr
    assert parquet.read_table(tmp_path / "out" / "data")["id"].to_pylist() == list(range(20))
    again = penstock("run", "pipeline.yaml", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["models"]["writer"]["loads"] == 0
    assert "done: all rows were already finished; no model was loaded" in again.stderr


def test_displays(tmp_path: Path) -> None:
    write_pipeline(tmp_path)
    silent = penstock("run", "pipeline.yaml", "--display", "none", "--out", "o1", cwd=tmp_path)
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", "")
    lines = penstock("run", "pipeline.yaml", "--display", "jsonl", "--out", "o2", cwd=tmp_path)
    assert (lines.returncode, lines.stdout) == (0, "")
    facts = [json.loads(line) for line in lines.stderr.splitlines()]
    assert (facts[-1]["status"], facts[-1]["committed"]) == ("done", 20)


def test_errors_with_any_display(tmp_path: Path) -> None:
    write_pipeline(tmp_path)
    text = (tmp_path / "pipeline.yaml").read_text()
    (tmp_path / "pipeline.yaml").write_text(text.replace("prompt:", "promt:"))
    for display in ("none", "jsonl", "plain"):
        done = penstock("run", "pipeline.yaml", "--display", display, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert "penstock: pipeline.yaml:6: unknown key 'promt'" in done.stderr
        assert "Traceback" not in done.stderr
    (tmp_path / "pipeline.yaml").write_text(text.replace("questions.jsonl", "question.jsonl"))
    done = penstock("run", "pipeline.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "question.jsonl" in done.stderr


def test_too_many_dead(tmp_path: Path) -> None:
    write_pipeline(tmp_path, fail_on="question 1")
    done = penstock("run", "pipeline.yaml", "--display", "none", cwd=tmp_path)
    assert done.returncode == 3
    assert "more dead rows than max_dead allows" in done.stderr
    assert "to continue: penstock run pipeline.yaml  (with a higher max_dead: --set max_dead=...)" in done.stderr
    plain = penstock("run", "pipeline.yaml", "--display", "plain", "--out", "other", cwd=tmp_path)
    assert "11 x refused in step generate" in plain.stderr
    assert "fix:   See the engine's message" in plain.stderr
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["status"] == "too_many_dead"
    more = penstock("run", "pipeline.yaml", "--set", "max_dead=15", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert "11 of them in earlier invocations: penstock status out" in more.stderr
    status = json.loads(penstock("status", "out", "--json", cwd=tmp_path).stdout)
    assert (status["status"], status["causes"]) == ("done", {"generate refused": 11})


def test_ctrl_c_stops_in_good_order_and_the_same_command_resumes(tmp_path: Path) -> None:
    write_pipeline(tmp_path, rows=120, ms_per_row=100)
    command = [sys.executable, "-m", "penstock.cli", "run", "pipeline.yaml", "--display", "jsonl"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line)["ended"] >= 20:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(TIME_LIMIT_S) == 75, rest
    assert "to continue: penstock run pipeline.yaml" in rest
    again = penstock("run", "pipeline.yaml", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["rows"]["reused"] >= 20
    assert parquet.read_table(tmp_path / "out" / "data")["id"].to_pylist() == list(range(120))


def listens(process: subprocess.Popen[str], number: int) -> bool:
    """Whether it has a handler for the signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(caught >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "later_s", [0.0, 0.1, 0.3, *(pytest.param(each, marks=pytest.mark.slow) for each in (0.02, 0.05, 0.2, 0.4, 0.6))]
)
def test_a_signal_while_the_command_line_is_imported(tmp_path: Path, number: int, later_s: float) -> None:
    write_pipeline(tmp_path, rows=400, ms_per_row=1000)
    command = [sys.executable, "-m", "penstock.cli", "run", "pipeline.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not listens(process, signal.SIGTERM):  # Python itself takes SIGINT only
            time.sleep(0.001)
        time.sleep(later_s)
        process.send_signal(number)
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait(TIME_LIMIT_S) == 75, told
    assert "Traceback" not in told and "stopped" in told


def test_ctrl_c_twice_stops_at_once_and_can_be_resumed(tmp_path: Path) -> None:
    write_pipeline(tmp_path, rows=20, hang_on="question 7")
    command = [sys.executable, "-m", "penstock.cli", "run", "pipeline.yaml", "--display", "jsonl"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line)["ended"] >= 1:
                break
        process.send_signal(signal.SIGINT)
        for line in process.stderr:
            if json.loads(line)["status"] == "stopping":
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(TIME_LIMIT_S) == 130, rest
    assert "Traceback" not in rest
    write_pipeline(tmp_path, rows=20)
    again = penstock("run", "pipeline.yaml", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert parquet.read_table(tmp_path / "out" / "data")["id"].to_pylist() == list(range(20))


def test_limit_is_not_part_of_a_run(tmp_path: Path) -> None:
    write_pipeline(tmp_path)
    part = json.loads(penstock("run", "pipeline.yaml", "--limit", "5", "--json", cwd=tmp_path).stdout)
    assert part["rows"]["out"] == 5
    whole = json.loads(penstock("run", "pipeline.yaml", "--json", cwd=tmp_path).stdout)
    assert (whole["rows"]["out"], whole["rows"]["reused"]) == (20, 5)


def test_preview_shows_rows_and_leaves_nothing(tmp_path: Path) -> None:
    write_pipeline(tmp_path, fail_on="question 1")
    done = penstock("preview", "pipeline.yaml", "-n", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("row 0\n  id: 0\n  question: question 0\n  answer: ")
    assert "dead: questions.jsonl row 1 in step generate\n  refused: " in done.stdout
    assert done.stdout.endswith("2 rows out, 1 dead\n")
    assert not (tmp_path / "out").exists()
    as_json = json.loads(penstock("preview", "pipeline.yaml", "-n", "3", "--json", cwd=tmp_path).stdout)
    assert [row["id"] for row in as_json["rows"]] == [0, 2]


def test_demo_with_any_model(tmp_path: Path) -> None:
    done = penstock("demo", "--rows", "12", "--model", "mock:writer", "--replicas", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8 of 12 rows (unedited):" in done.stdout
    assert "docwriter" not in done.stdout
    again = penstock("run", "penstock-demo/pipeline.yaml", cwd=tmp_path)
    assert "no model was loaded" in again.stderr


@pytest.mark.transformers
def test_demo_with_its_own_model(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    done = penstock("demo", "--rows", "16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [
        json.loads(line) for line in (tmp_path / "penstock-demo/run/data/part-00000.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 16
    assert all(isinstance(row["docstring"], str) for row in rows)
    assert "5.5M-parameter" in done.stdout


@pytest.mark.parametrize("name", ["answers", "branches", "passages"])
def test_examples_in_yaml(name: str, tmp_path: Path) -> None:
    done = penstock("run", f"examples/{name}.yaml", "--out", str(tmp_path / "out"), "--json", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert (rows["out"], rows["dead"]) == {"answers": (6, 0), "branches": (6, 0), "passages": (4, 0)}[name]


def test_example_in_python(tmp_path: Path) -> None:
    command = [sys.executable, "examples/answers.py", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ, timeout=TIME_LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert parquet.read_table(tmp_path / "out" / "data")["id"].to_pylist() == [1, 2, 3, 4, 5, 6]


def test_example_of_a_pool_without_a_pipeline() -> None:
    command = [sys.executable, "examples/pool.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ, timeout=TIME_LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8 tokens") == 4
    answered = re.findall(r"writer-\d \w+ (\d+) answered", done.stdout)  # the second may be ready only when all is done
    assert len(answered) == 2 and sum(map(int, answered)) == 6, done.stdout
