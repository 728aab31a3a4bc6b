"""`penstock retry`: dead rows run again, and what becomes of them stands where it belongs."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from retry_support import catch_retry, retry, rows, well
from run_support import WAIT_LIMIT_S, dead, end_of, errors, run, start, summary, wait_until

import penstock as ps
from command_server import run_command

pytestmark = pytest.mark.process

ROWS = 40
FUNCTIONS = "def halves(row):\n    return [{'half': 0}, {'half': 1}]\n"


def write(folder: Path, *, format: str = "parquet", order: str = "input", phases: bool = False, **engine: Any) -> None:
    """Rows of two children each; `fail_on` of the engine decides which of them die."""
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps({"id": n, "q": f"q{n}."}) + "\n" for n in range(ROWS)))
    (folder / "own_steps.py").write_text(FUNCTIONS)
    models = {"a": {"ref": "mock:a", "replicas": 2, "engine_options": {"slots": 4, **engine}}}
    steps: list[dict[str, Any]] = [
        {"generate": {"model": "a", "prompt": "{{ q }}", "output": "one", "max_tokens": 3}},
        {"expand": {"function": "own_steps:halves"}},
        {"filter": {"expr": "not (id % 9 == 4 and half == 0)"}},
        {"generate": {"model": "a", "prompt": "{{ id }}/{{ half }};", "output": "two", "temperature": 1.0}},
    ]
    if phases:
        models["b"] = {"ref": "mock:b", "engine_options": {"slots": 4, **engine}}
        steps[3]["generate"]["model"] = "b"
    written = {
        "models": models,
        "source": {"path": "rows.jsonl"},
        "steps": steps,
        "sink": {"path": "out", "format": format, "order": order},
        "commit_every_s": 0.1,
        "max_dead": 1.0,
        "resources": {"load_strategy": "phases" if phases else "together"},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(written, sort_keys=False))


def status(folder: Path) -> str:
    return run_command("status", "out", folder=folder, limit_s=WAIT_LIMIT_S).stdout


@pytest.fixture(scope="module")
def never(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of which no row has died."""
    folder = tmp_path_factory.mktemp("never")
    write(folder)
    assert run(folder) == 0
    return folder


@pytest.fixture(scope="module")
def undisturbed(never: Path) -> list[dict[str, Any]]:
    return rows(never)


def figures(folder: Path) -> dict[str, Any]:
    found = summary(folder)
    return {"rows": {key: found["rows"][key] for key in ("in", "out", "dead", "filtered")}, "steps": found["steps"]}


FAILING = {"sources": "q1", "children": "/1;", "all": "q"}
FORMATS = ("parquet", "jsonl", "arrow")
IN_EVERY_TEST = {("parquet", "sources"), ("parquet", "children"), ("jsonl", "all"), ("arrow", "sources")}


@pytest.mark.parametrize(
    ("format", "failing"),
    [
        pytest.param(*each, marks=[] if each in IN_EVERY_TEST else pytest.mark.slow)
        for each in itertools.product(FORMATS, FAILING)
    ],
)
def test_what_succeeds_now_stands_where_it_belongs(tmp_path: Path, never: Path, format: str, failing: str) -> None:
    fail_on = FAILING[failing]
    write(tmp_path, format=format, fail_on=fail_on)
    assert run(tmp_path) == 0
    died = len(dead(tmp_path))
    assert died == {"sources": 11, "children": ROWS, "all": ROWS}[failing]
    assert retry(tmp_path, *well()) == 0, errors(tmp_path)
    assert rows(tmp_path) == rows(never) and not dead(tmp_path)
    assert summary(tmp_path)["retried"]["rows"] == died
    assert figures(tmp_path) == figures(never)
    assert not list((tmp_path / "out" / ".penstock").glob("retry-*"))


def test_after_phases(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    write(tmp_path, phases=True, fail_on="/1;")
    assert run(tmp_path) == 0
    assert len(dead(tmp_path)) == ROWS
    assert retry(tmp_path, "--set", "models.b.engine_options.fail_on=nothing") == 0, errors(tmp_path)
    assert [(row["id"], row["half"]) for row in rows(tmp_path)] == [(row["id"], row["half"]) for row in undisturbed]


def test_a_phase_in_the_middle_takes_the_types_of_the_output(tmp_path: Path) -> None:
    """Two rows are run again; the first has what no column holds, now as before, and does not decide for the other."""
    write(tmp_path, phases=True, fail_on="q7.")
    with (tmp_path / "own_steps.py").open("a") as file:
        file.write("def value(row):\n    return {'v': ['x'] if row['id'] == 3 else 1.5}\n")
    text = yaml.safe_load((tmp_path / "pipeline.yaml").read_text())
    text["steps"].insert(1, {"map": {"function": "own_steps:value"}})
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    assert run(tmp_path) == 0
    assert sorted((row["row"], row["code"]) for row in dead(tmp_path)) == [(3, "encode_error")] * 2 + [(7, "refused")]
    assert retry(tmp_path, *well()) == 0
    assert [(row["row"], row["code"]) for row in dead(tmp_path)] == [(3, "encode_error")] * 2
    assert {row["v"] for row in rows(tmp_path)} == {1.5} and 7 in {row["id"] for row in rows(tmp_path)}


def test_brothers_and_sisters_are_not_asked_again(tmp_path: Path) -> None:
    write(tmp_path, fail_on="/1;")
    assert run(tmp_path) == 0
    assert retry(tmp_path, *well()) == 0, errors(tmp_path)
    asked = sum(replica["rows"] for replica in summary(tmp_path)["models"]["a"]["replicas"])
    assert asked == 2 * ROWS, "each source row once more, up to the expand, and each dead child"


def test_only_rows_of_a_code(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    write(tmp_path, fail_on="q7.")
    text = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join([*text[:3], '{"id": 3', *text[4:]]) + "\n")
    assert run(tmp_path) == 0
    assert retry(tmp_path, "--code", "refused", *well()) == 0, errors(tmp_path)
    assert [(row["row"], row["code"]) for row in dead(tmp_path)] == [(3, "bad_json")]
    assert rows(tmp_path) == [row for row in undisturbed if row["id"] != 3]
    assert retry(tmp_path, "--code", "refused") == 0
    assert "no dead rows with code refused" in errors(tmp_path)


def test_completion_order_gets_them_at_the_end(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    write(tmp_path, order="completion", fail_on="q1")
    assert run(tmp_path) == 0
    before = rows(tmp_path)
    assert retry(tmp_path, *well()) == 0, errors(tmp_path)
    after = rows(tmp_path)
    assert after[: len(before)] == before and sorted(map(str, after)) == sorted(map(str, undisturbed))


def test_what_dies_again_stays_dead_and_can_be_tried_once_more(
    tmp_path: Path, undisturbed: list[dict[str, Any]]
) -> None:
    write(tmp_path, fail_on="q1")
    assert run(tmp_path) == 0
    assert retry(tmp_path, *well("q12.")) == 0, errors(tmp_path)
    (left,) = dead(tmp_path)
    assert (left["row"], left["code"]) == (12, "refused") and "q12." in left["message"]
    assert summary(tmp_path)["retried"] == {"rows": 11, "out": 19, "dead": 1}  # a child of 13 is filtered
    assert retry(tmp_path, *well()) == 0, errors(tmp_path)
    assert rows(tmp_path) == undisturbed and not dead(tmp_path)


def test_a_retry_that_is_stopped_or_killed_goes_on(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    write(tmp_path, fail_on="q")
    assert run(tmp_path) == 0
    inner = tmp_path / "out" / ".penstock" / "retry-0001" / ".penstock" / "manifest"
    for number, code in ((signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)):
        seen = len(list(inner.glob("*"))) if inner.exists() else 0
        process = catch_retry(tmp_path, *well(), ms_per_row=100, commits=seen + 2)
        assert "retrying" in status(tmp_path)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        assert end_of(process, tmp_path) == code
        assert len(dead(tmp_path)) == ROWS and not rows(tmp_path), "nothing changes before the end"
        assert "run `penstock retry` to continue" in status(tmp_path)
    assert retry(tmp_path, *well()) == 0, errors(tmp_path)
    assert rows(tmp_path) == undisturbed and not dead(tmp_path)


def test_a_retry_that_is_killed_after_its_commit_has_its_summary_written_by_the_next(tmp_path: Path) -> None:
    write(tmp_path, fail_on="q7.")
    assert run(tmp_path) == 0
    killed = retry(tmp_path, *well(), env={"PENSTOCK_FAULTPOINT": "close.owner_released:2"})
    assert (killed, summary(tmp_path)["rows"]["dead"]) == (-signal.SIGKILL, 1)
    left = tmp_path / "out" / ".penstock" / "retry-0001"  # where it is killed a moment earlier
    left.mkdir()
    left.with_suffix(".json").touch()
    assert retry(tmp_path, *well()) == 0, errors(tmp_path)
    assert (len(dead(tmp_path)), summary(tmp_path)["rows"]["dead"]) == (0, 0)
    assert not list(left.parent.glob("retry-*"))


def test_a_relative_folder_is_that_of_the_working_directory(tmp_path: Path) -> None:
    """The pipeline's paths are those of the folder that the run was started in, which has an output of that name."""
    write(tmp_path / "below", fail_on="q7.")
    assert run(tmp_path / "below") == 0
    shutil.copytree(tmp_path / "below" / "out", tmp_path / "elsewhere" / "out")
    assert retry(tmp_path / "elsewhere", *well()) == 0, errors(tmp_path / "elsewhere")
    assert [len(dead(tmp_path / name)) for name in ("elsewhere", "below")] == [0, 1]


def test_from_python(tmp_path: Path, undisturbed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"id": n}) + "\n" for n in range(5)))

    def made(fail_on: str) -> ps.Rows:
        model = ps.Model("mock:a", engine_options={"fail_on": fail_on})
        return ps.read("rows.jsonl").generate(model, prompt="n{{ id }}.", output="answer").write("out")

    first = made("n3.").run(max_dead=1.0, display="none")
    assert first.summary["rows"]["dead"] == 1
    again = made("nothing").retry("refused", display="none")
    assert (again.exit_code, again.summary["rows"]["dead"]) == (0, 0)
    assert [row["id"] for row in rows(tmp_path)] == [0, 1, 2, 3, 4]


def test_refused(tmp_path: Path) -> None:
    write(tmp_path, ms_per_row=2000, fail_on="q1")
    process = start(tmp_path)
    wait_until(lambda: '"ended":' in errors(tmp_path), "the run to begin")
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert retry(tmp_path) == 2
    assert "this run has not finished" in errors(tmp_path)
    assert retry(tmp_path, "--code", "refusd") == 2
    assert "did you mean 'refused'" in errors(tmp_path)
    write(tmp_path, fail_on="q1")
    assert run(tmp_path) == 0
    assert retry(tmp_path, "--set", "seed=9") == 2
    assert "seed: was 0, is 9" in errors(tmp_path)
    (tmp_path / "out" / ".penstock" / "given.json").unlink()
    assert retry(tmp_path) == 2
    assert "pass it with --pipeline" in errors(tmp_path)
    assert retry(tmp_path, "--pipeline", "pipeline.yaml", *well()) == 0
    (tmp_path / "empty").mkdir()
    told = run_command("retry", "empty", folder=tmp_path, limit_s=WAIT_LIMIT_S)
    assert told.returncode == 2 and "has no Penstock run" in told.stderr
