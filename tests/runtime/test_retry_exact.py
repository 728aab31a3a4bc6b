"""`penstock retry` where rows are easily taken for one another: a file that is named several times, a retry of other
codes that was begun before, a run that is continued meanwhile, runs of an older Penstock."""

from __future__ import annotations

import functools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from retry_support import catch_retry, make_older, retry, rows, well
from run_support import committed, dead, end_of, errors, run, start, summary, wait_until

from command_server import Command

pytestmark = pytest.mark.process

ROWS = 12
TWICE = ["rows.jsonl", "rows.jsonl"]
FUNCTIONS = """\
def halves(row):
    return [{'half': 0}, {'half': 1}]

def value(row):
    return {'v': ['x'] if row['id'] == 3 and row['bad'] else 1.5}
"""


def write(
    folder: Path,
    paths: list[str],
    steps: tuple[str, ...] = ("one", "halves", "two"),
    *,
    phases: bool = False,
    order: str = "input",
    count: int = ROWS,
    **engine: Any,
) -> None:
    """steps: of those below, in this order. Row 5 of the file is no JSON."""
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"id": n, "q": f"q{n}.", "bad": True}) + "\n" for n in range(count)]
    lines[5] = '{"id": 5\n'
    (folder / "rows.jsonl").write_text("".join(lines))
    if not (folder / "link.jsonl").exists():
        (folder / "link.jsonl").symlink_to("rows.jsonl")
    (folder / "own_steps.py").write_text(FUNCTIONS)
    options = {"slots": 4, **engine}
    every = {
        "one": {"generate": {"model": "a", "prompt": "{{ q }}", "output": "one", "temperature": 1.0}},
        "halves": {"expand": {"function": "own_steps:halves"}},
        "value": {"map": {"function": "own_steps:value"}},
        "two": {
            "generate": {
                "model": "b" if phases else "a",
                "prompt": "{{ id }}/{{ half | default(1) }};",
                "output": "two",
                "temperature": 1.0,
            }
        },
    }
    written = {
        "models": {name: {"ref": f"mock:{name}", "engine_options": options} for name in ("ab" if phases else "a")},
        "source": {"path": paths},
        "steps": [every[name] for name in steps],
        "sink": {"path": "out", "order": order},
        "commit_every_s": 0.1,
        "max_dead": 1.0,
        "resources": {"load_strategy": "phases" if phases else "together"},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(written, sort_keys=False))


def by_text(found: list[dict[str, Any]]) -> list[str]:
    return sorted(map(str, found))


def figures(folder: Path) -> dict[str, Any]:
    found = summary(folder)
    return {"rows": {key: found["rows"][key] for key in ("in", "out", "dead", "filtered")}, "steps": found["steps"]}


SEVERAL = ["rows.jsonl", "./rows.jsonl", "link.jsonl", "row*.jsonl", "rows.jsonl"]


@pytest.fixture(scope="module")
def never(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """never(phases) -> the folder of a run of which only the line died that is no JSON."""

    @functools.cache
    def folder(phases: bool) -> Path:
        made = tmp_path_factory.mktemp("never")
        write(made, SEVERAL, phases=phases)
        assert run(made) == 0
        return made

    return folder


@pytest.mark.parametrize(("phases", "order"), [(False, "input"), (True, "input"), (False, "completion")])
@pytest.mark.parametrize("fail_on", ["q1", "/1;"], ids=["sources", "children"])
def test_a_file_that_is_named_several_times(
    tmp_path: Path, never: Callable[[bool], Path], phases: bool, order: str, fail_on: str
) -> None:
    write(tmp_path, SEVERAL, phases=phases, order=order, fail_on=fail_on)
    assert run(tmp_path) == 0
    died, before = len(dead(tmp_path)), len(rows(tmp_path))
    sets = [f"models.{name}.engine_options.fail_on=nothing" for name in ("ab" if phases else "a")]
    assert retry(tmp_path, *(word for value in sets for word in ("--set", value))) == 0, errors(tmp_path)
    found, wanted = rows(tmp_path), rows(never(phases))
    assert found == wanted if order == "input" else by_text(found) == by_text(wanted)
    assert [(row["row"], row["code"]) for row in dead(tmp_path)] == [(5, "bad_json")] * len(SEVERAL)
    assert figures(tmp_path) == figures(never(phases))
    assert summary(tmp_path)["retried"] == {"rows": died, "out": len(found) - before, "dead": len(SEVERAL)}


def test_one_code_after_another(tmp_path: Path) -> None:
    write(tmp_path, TWICE, ("one",), fail_on="q7.")
    assert run(tmp_path) == 0
    assert retry(tmp_path, "--code", "bad_json") == 0, errors(tmp_path)
    assert sorted((row["row"], row["code"]) for row in dead(tmp_path)) == [(5, "bad_json")] * 2 + [(7, "refused")] * 2
    assert retry(tmp_path, "--code", "refused", *well()) == 0, errors(tmp_path)
    assert [(row["row"], row["code"]) for row in dead(tmp_path)] == [(5, "bad_json")] * 2
    assert [row["id"] for row in rows(tmp_path)] == [n for n in range(ROWS) if n != 5] * 2


@pytest.mark.parametrize("paths", [["rows.jsonl", "link.jsonl"], TWICE], ids=["unique", "twice"])
def test_a_run_of_an_older_penstock(tmp_path: Path, paths: list[str]) -> None:
    """Its dead rows are known by name only. Where both places of a name have died, they are known all the same."""
    write(tmp_path / "never", paths)
    assert run(tmp_path / "never") == 0
    write(tmp_path, paths, fail_on="/1;")
    assert run(tmp_path) == 0
    make_older(tmp_path / "out")
    assert retry(tmp_path, *well()) == 0, errors(tmp_path)
    assert rows(tmp_path) == rows(tmp_path / "never")
    assert figures(tmp_path) == figures(tmp_path / "never")


def test_a_retry_that_an_older_penstock_has_begun(tmp_path: Path) -> None:
    """Its list names rows by file and ordinal; where such a name stands for two rows, the retry is begun again."""
    for paths in (["rows.jsonl", "link.jsonl"], TWICE):
        folder = tmp_path / str(len(set(paths)))
        write(folder, paths, ("one",), fail_on="q1")
        assert run(folder) == 0
        make_older(folder / "out")
        first = 1 if paths == TWICE else 0  # what positions_of had found: the last place of the name
        positions = [first * ROWS + n for n in (1, 10, 11)]
        more = [] if paths == TWICE else [["link.jsonl", n, [], "generate", ROWS + n] for n in (1, 10, 11)]
        listed = [["rows.jsonl", n, [], "generate", at] for n, at in zip((1, 10, 11), positions, strict=True)]
        if paths == TWICE:
            listed = [one for one in listed for _ in TWICE]
        (folder / "out" / ".penstock" / "retry-0001.json").write_text(json.dumps([*listed, *more]))
        assert retry(folder, *well()) == 0, errors(folder)
        assert [row["id"] for row in rows(folder)] == [n for n in range(ROWS) if n != 5] * 2


def test_what_died_between_two_phases_has_passed_the_steps_of_the_first(tmp_path: Path) -> None:
    """Row 3 can't be carried over at first; figures per step are those of a run in which it could."""
    steps = ("one", "value", "halves", "two")
    write(tmp_path / "never", TWICE, steps, phases=True)
    write(tmp_path, TWICE, steps, phases=True)
    for folder in (tmp_path, tmp_path / "never"):
        text = (folder / "own_steps.py").read_text()
        lost = "import pathlib\n" + text.replace("row['bad']", "not pathlib.Path('fixed').exists()")
        (folder / "own_steps.py").write_text(lost)
    (tmp_path / "never" / "fixed").touch()
    assert run(tmp_path / "never") == 0
    assert run(tmp_path) == 0
    lost = [(row["row"], row["code"]) for row in dead(tmp_path)]
    assert sorted(lost) == [(3, "encode_error")] * 4 + [(5, "bad_json")] * 2
    assert retry(tmp_path, "--code", "encode_error") == 0, errors(tmp_path)
    assert len(dead(tmp_path)) == 6
    (tmp_path / "fixed").touch()
    assert retry(tmp_path) == 0, errors(tmp_path)
    assert rows(tmp_path) == rows(tmp_path / "never")
    assert figures(tmp_path) == figures(tmp_path / "never")


# ---------------------------------------------------------------- another retry, and the run itself, meanwhile


def killed_retry(folder: Path, *arguments: str) -> None:
    """A retry that gets as far as a commit."""
    process = catch_retry(folder, *arguments)
    process.kill()
    assert end_of(process, folder) == -signal.SIGKILL


@pytest.mark.parametrize("asked", [(), ("--code", "bad_json"), ("--code", "refused")], ids=["all", "other", "same"])
def test_a_retry_of_other_codes_that_was_begun_comes_first(tmp_path: Path, asked: tuple[str, ...]) -> None:
    write(tmp_path, TWICE, ("one",), fail_on="q1")
    assert run(tmp_path) == 0
    killed_retry(tmp_path, "--code", "refused", *well())
    assert retry(tmp_path, *asked, *well()) == 0, errors(tmp_path)
    assert [(row["row"], row["code"]) for row in dead(tmp_path)] == [(5, "bad_json")] * 2
    assert [row["id"] for row in rows(tmp_path)] == [n for n in range(ROWS) if n != 5] * 2
    rest = 0 if "refused" in asked else 2
    assert summary(tmp_path)["retried"] == {"rows": 6 + rest, "out": 6, "dead": rest}
    told = "the retry with code refused that was started before, with 6 dead rows, was completed first"
    assert (told in errors(tmp_path)) == bool(rest)
    assert not list((tmp_path / "out" / ".penstock").glob("retry-*"))


def test_a_retry_of_all_that_was_begun_comes_before_one_of_a_code(tmp_path: Path) -> None:
    write(tmp_path, TWICE, ("one",), fail_on="q1")
    assert run(tmp_path) == 0
    killed_retry(tmp_path, *well())
    assert retry(tmp_path, "--code", "bad_json", *well()) == 0, errors(tmp_path)
    assert summary(tmp_path)["retried"] == {"rows": 8, "out": 6, "dead": 2}, "no row twice in one command"
    assert "the retry that was started before, with 8 dead rows, was completed first" in errors(tmp_path)


def test_a_retry_that_is_stopped_names_the_command_that_continues_it(tmp_path: Path) -> None:
    write(tmp_path, TWICE, ("one",), fail_on="q1")
    assert run(tmp_path) == 0
    process = catch_retry(tmp_path, "--code", "refused", *well())
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    assert end_of(process, tmp_path) == 75
    sets = f"--set {well()[1]} --set models.a.engine_options.ms_per_row="
    assert f"to continue: penstock retry out --code refused {sets}" in errors(tmp_path)


def limited(folder: Path) -> Command:
    """A run of the first rows has ended; the retry of its dead rows is held (SIGSTOP)."""
    write(folder, TWICE, ("one",), fail_on="q1")
    assert run(folder, "--limit", "12") == 0
    return catch_retry(folder, *well(), commits=0, log="retry.txt")


def test_a_run_that_is_continued_and_ends_while_its_dead_rows_are_run_again(tmp_path: Path) -> None:
    process = limited(tmp_path)
    assert run(tmp_path) == 0
    process.send_signal(signal.SIGCONT)
    assert end_of(process, tmp_path) == 0
    assert summary(tmp_path)["retried"] == {"rows": 4, "out": 3, "dead": 1}, "what the retry did, and nothing else"
    assert sorted((row["row"], row["code"]) for row in dead(tmp_path)) == [
        (1, "refused"), (5, "bad_json"), (5, "bad_json"), (10, "refused"), (11, "refused")
    ]  # fmt: skip
    assert [row["id"] for row in rows(tmp_path)] == [*(n for n in range(ROWS) if n != 5), 0, 2, 3, 4, 6, 7, 8, 9]
    assert retry(tmp_path, *well()) == 0, errors(tmp_path)
    assert [row["id"] for row in rows(tmp_path)] == [n for n in range(ROWS) if n != 5] * 2
    assert {key: summary(tmp_path)["rows"][key] for key in ("in", "out", "dead")} == {"in": 24, "out": 22, "dead": 2}


def test_a_run_that_is_continued_and_has_not_ended_when_the_retry_has(tmp_path: Path) -> None:
    """The retry puts nothing in its place, keeps what it has done, and the same command finishes it."""
    process = limited(tmp_path)
    beside = start(tmp_path, "--set", "models.a.engine_options.ms_per_row=1500")
    wait_until(lambda: committed(tmp_path) > 12, "the run to commit")
    beside.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGCONT)
    assert end_of(process, tmp_path) == 2
    assert "the run was resumed while its dead rows were retried" in (tmp_path / "retry.txt").read_text()
    beside.send_signal(signal.SIGCONT)
    assert end_of(beside, tmp_path) == 0, errors(tmp_path)
    assert len(dead(tmp_path)) == 8
    asked = [*well(), "--set", "models.a.engine_options.crash_on=q"]  # nothing is asked again
    assert retry(tmp_path, *asked) == 0, errors(tmp_path)
    assert summary(tmp_path)["retried"] == {"rows": 4, "out": 3, "dead": 1}
    assert retry(tmp_path, *well()) == 0, errors(tmp_path)
    assert [row["id"] for row in rows(tmp_path)] == [n for n in range(ROWS) if n != 5] * 2


def test_a_retry_that_ends_before_the_run_beside_it_has_committed(tmp_path: Path) -> None:
    """One of the two is told of the other and continued by the same command; which, is a matter of who owns the run."""
    process = limited(tmp_path)
    beside = start(tmp_path, "--set", "models.a.engine_options.ms_per_row=4000", "--set", "commit_every_s=60")
    wait_until(lambda: '"in_flight":' in errors(tmp_path), "the run to begin")
    beside.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGCONT)
    ended = end_of(process, tmp_path)
    first = [n for n in range(ROWS) if n != 5]
    assert [row["id"] for row in rows(tmp_path)] == (
        first if ended == 0 else [n for n in first if n not in (1, 10, 11)]
    )
    beside.send_signal(signal.SIGCONT)
    codes = ended, end_of(beside, tmp_path)
    if ended:
        assert codes == (2, 0) and "The results of the retry are kept" in (tmp_path / "retry.txt").read_text()
        assert retry(tmp_path, *well()) == 0, errors(tmp_path)
    else:
        assert codes == (0, 1) and "another" in errors(tmp_path).splitlines()[-1]
        assert run(tmp_path) == 0, errors(tmp_path)
    assert retry(tmp_path, *well()) == 0, errors(tmp_path)
    assert [row["id"] for row in rows(tmp_path)] == first * 2
