"""Each row of the source ends once, or the run is refused with the reason: limits that differ between lives, and files
that change between and within them."""

from __future__ import annotations

import gzip
import json
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml
from run_support import catch, committed, end_of, errors, run, start, summary

from penstock.ledger.view import read_run

pytestmark = pytest.mark.process

COUNT = 2000
ROWS = [{"id": number, "question": f"what is {number:04}, really? " + "and why? " * 140} for number in range(COUNT)]
FORMATS = ["jsonl", "parquet", "arrow"]


def write_source(path: Path, rows: list[dict[str, Any]]) -> None:
    """In place. Rows of equal length give files of equal size."""
    table, part = pa.Table.from_pylist(rows), path.with_name(path.name + ".part")
    if path.suffix == ".parquet":
        pq.write_table(table, part, row_group_size=100, compression="none", use_dictionary=False)
    elif path.suffix == ".arrow":
        with pa.ipc.new_file(part, table.schema) as writer:
            writer.write_table(table, max_chunksize=100)
    elif path.suffix == ".csv":
        part.write_text("id,question\n" + "".join(f'{row["id"]},"{row["question"]}"\n' for row in rows))
    else:
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(part.read_bytes())
        file.truncate()
    part.unlink()


def swapped(first: int, second: int) -> list[dict[str, Any]]:
    rows = list(ROWS)
    rows[first] = {**rows[first], "question": ROWS[second]["question"]}
    rows[second] = {**rows[second], "question": ROWS[first]["question"]}
    return rows


def write(folder: Path, source: str | list[str], *, ms_per_row: int = 1, phases: bool = False, **top: Any) -> None:
    models = {
        name: {"ref": f"mock:{name}", "replicas": 2, "engine_options": {"slots": 8, "ms_per_row": ms_per_row}}
        for name in ("ab" if phases else "a")
    }
    steps = [{"generate": {"model": "a", "prompt": "{{ question }}", "output": "one", "max_tokens": 2}}]
    if phases:
        steps += [{"generate": {"model": "b", "prompt": "{{ one }}", "output": "two", "max_tokens": 2}}]
    written = {
        "models": models,
        "source": {"path": source},
        "steps": steps,
        "sink": {"path": "out", "format": "jsonl"},
        "commit_every_s": 0.05,
        "window": {"rows": 128},
        "resources": {"load_strategy": "phases" if phases else "together"},
        **top,
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(written, sort_keys=False))


def ids(folder: Path) -> list[int]:
    parts = sorted((folder / "out" / "data").iterdir())
    return [json.loads(line)["id"] for part in parts for line in part.read_text().splitlines()]


def cut_short(folder: Path, source: str, how: signal.Signals, *arguments: str, **options: Any) -> None:
    """A run that ends by a signal when some hundred rows are committed."""

    def begin(slower: int) -> Any:
        write(folder, source, ms_per_row=10 * slower, **options)
        return start(folder, *arguments)

    process = catch(folder, begin, lambda: 250 < committed(folder) < COUNT // 2, "some commits")
    process.send_signal(how)
    process.send_signal(signal.SIGCONT)
    end_of(process, folder)
    write(folder, source, **options)


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("window", "how", "limit"), [(8192, signal.SIGTERM, 50), (8192, signal.SIGKILL, 1700), (128, signal.SIGKILL, 50)]
)
def test_a_limit_after_a_stop_leaves_the_other_rows_to_a_life_without(
    tmp_path: Path, window: int, how: signal.Signals, limit: int
) -> None:
    """With the larger window the end of the source has been seen before the stop."""
    write_source(tmp_path / "rows.jsonl", ROWS)
    cut_short(tmp_path, "rows.jsonl", how, window={"rows": window})
    before = committed(tmp_path)
    assert run(tmp_path, "--limit", str(limit)) == 0
    done = ids(tmp_path)
    assert done == list(range(len(done))) and len(done) >= max(limit, before)
    assert summary(tmp_path)["rows"]["in"] == summary(tmp_path)["rows"]["out"] == len(done)
    if limit > before + 500:
        assert len(done) == limit
    assert len(done) < COUNT
    assert run(tmp_path) == 0
    assert ids(tmp_path) == list(range(COUNT))
    assert summary(tmp_path)["rows"]["reused"] == len(done)


def test_a_limit_and_rows_of_csv_that_ended_before(tmp_path: Path) -> None:
    """Its reader counts only what it gives, and passes over what has ended."""
    write_source(tmp_path / "rows.csv", ROWS)
    cut_short(tmp_path, "rows.csv", signal.SIGKILL)
    assert run(tmp_path, "--limit", "1600") == 0
    assert ids(tmp_path) == list(range(1600))
    assert run(tmp_path, "--limit", "400") == 0
    assert ids(tmp_path) == list(range(1600))
    assert run(tmp_path) == 0
    assert ids(tmp_path) == list(range(COUNT))


@pytest.mark.parametrize(("phase", "how"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGTERM)])
def test_a_phased_run_with_a_limit_is_cut_short_and_goes_on_without(
    tmp_path: Path, phase: int, how: signal.Signals
) -> None:
    write_source(tmp_path / "rows.jsonl", ROWS)

    def begin(slower: int) -> Any:
        write(tmp_path, "rows.jsonl", ms_per_row=10 * slower, phases=True)
        return start(tmp_path, "--limit", "400")

    def there() -> bool:
        view = read_run(tmp_path / "out") if (tmp_path / "out" / "run.json").exists() else None
        return view is not None and view.phase == phase and 50 < view.watermark < 300

    process = catch(tmp_path, begin, there, f"commits in phase {phase}")
    process.send_signal(how)
    process.send_signal(signal.SIGCONT)
    end_of(process, tmp_path)
    write(tmp_path, "rows.jsonl", phases=True)
    assert run(tmp_path) == 0
    assert ids(tmp_path) == list(range(COUNT))
    assert summary(tmp_path)["rows"] | {"reused": 0} == {
        "in": COUNT,
        "out": COUNT,
        "dead": 0,
        "filtered": 0,
        "reused": 0,
    }


def test_a_phased_run_that_was_stopped_goes_on_with_a_limit_and_then_without(tmp_path: Path) -> None:
    write_source(tmp_path / "rows.jsonl", ROWS)

    def begin(slower: int) -> Any:
        write(tmp_path, "rows.jsonl", ms_per_row=10 * slower, phases=True, window={"rows": 8192})
        return start(tmp_path)

    def there() -> bool:
        view = read_run(tmp_path / "out") if (tmp_path / "out" / "run.json").exists() else None
        return view is not None and view.phase == 0 and 50 < view.watermark < 600

    process = catch(tmp_path, begin, there, "commits in the first phase")
    process.terminate()
    process.send_signal(signal.SIGCONT)
    assert end_of(process, tmp_path) == 75
    begun = committed(tmp_path)  # what was in flight ended as well: more than was seen, and on a busy machine over 900
    write(tmp_path, "rows.jsonl", phases=True)
    assert run(tmp_path, "--limit", "900") == 0
    assert ids(tmp_path) == list(range(max(900, begun)))
    assert run(tmp_path) == 0
    assert ids(tmp_path) == list(range(COUNT))


# ---------------------------------------------------------------- files that change


@pytest.mark.parametrize("kind", FORMATS)
def test_a_source_that_changed_but_not_its_size_is_refused_and_goes_on_when_restored(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    write_source(path, ROWS)
    cut_short(tmp_path, path.name, signal.SIGKILL)
    size_bytes, before = path.stat().st_size, committed(tmp_path)
    write_source(path, swapped(190, COUNT - 2))
    assert path.stat().st_size == size_bytes
    assert run(tmp_path) == 2
    assert f"{path.name}: its content has changed since this run read it" in errors(tmp_path)
    assert "Traceback" not in errors(tmp_path)
    assert committed(tmp_path) == before
    write_source(path, ROWS)
    assert run(tmp_path) == 0
    assert ids(tmp_path) == list(range(COUNT))


@pytest.mark.parametrize("kind", [*FORMATS, "jsonl.gz"])
def test_a_source_that_is_cut_in_mid_run_ends_it_with_the_reason(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    write_source(path, ROWS)
    if kind == "jsonl.gz":
        path.write_bytes(gzip.compress(path.read_bytes(), compresslevel=0))
    whole = path.read_bytes()
    assert len(whole) > 2 << 20, "it must not fit into one read"

    def begin(slower: int) -> Any:
        path.write_bytes(whole)
        write(tmp_path, path.name, ms_per_row=10 * slower)
        return start(tmp_path)

    process = catch(tmp_path, begin, lambda: 250 < committed(tmp_path) < COUNT // 2, "some commits")
    os.truncate(path, len(whole) * 2 // 3 if kind != "parquet" else len(whole) // 3)
    process.send_signal(signal.SIGCONT)
    assert end_of(process, tmp_path) == 2, errors(tmp_path)
    assert f"{path.name}: shrank during the run" in errors(tmp_path)
    assert summary(tmp_path)["status"] == "failed"
    path.write_bytes(whole)
    write(tmp_path, path.name)
    assert run(tmp_path) == 0
    assert ids(tmp_path) == list(range(COUNT))


def test_rows_that_change_places_in_mid_run_end_it_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_source(path, ROWS)

    def begin(slower: int) -> Any:
        write_source(path, ROWS)
        write(tmp_path, path.name, ms_per_row=10 * slower)
        return start(tmp_path)

    process = catch(tmp_path, begin, lambda: 250 < committed(tmp_path) < COUNT // 2, "some commits")
    write_source(path, swapped(190, COUNT - 2))
    process.send_signal(signal.SIGCONT)
    assert end_of(process, tmp_path) == 2
    assert f"{path.name}: changed during the run" in errors(tmp_path)
    assert run(tmp_path) == 2, "and for good"


def test_an_archive_that_broke_off_goes_on_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    write_source(tmp_path / "rows.jsonl", ROWS)
    whole = gzip.compress((tmp_path / "rows.jsonl").read_bytes(), compresslevel=0)
    path.write_bytes(whole[: len(whole) * 3 // 4])
    write(tmp_path, path.name)
    assert run(tmp_path) == 2
    assert "ends early" in errors(tmp_path)
    assert 0 < committed(tmp_path) < COUNT
    path.write_bytes(whole)
    assert run(tmp_path) == 0
    assert ids(tmp_path) == list(range(COUNT))


@pytest.mark.parametrize("broken_off", [True, False])
def test_an_archive_with_more_behind_its_end_is_refused(tmp_path: Path, broken_off: bool) -> None:
    """A run that has read it to its end is complete, yet not of what stands there now. broken_off: when it began."""
    path = tmp_path / "rows.jsonl.gz"
    write_source(tmp_path / "rows.jsonl", ROWS[:300])
    whole = gzip.compress((tmp_path / "rows.jsonl").read_bytes())
    write(tmp_path, path.name)
    if broken_off:
        path.write_bytes(whole[: len(whole) * 3 // 4])
        assert run(tmp_path) == 2
    path.write_bytes(whole)
    assert run(tmp_path) == 0
    assert run(tmp_path) == 0, "complete"
    path.write_bytes(whole + gzip.compress(json.dumps({"id": 300, "question": "new"}).encode()))
    for limit in ([], ["--limit", "500"]):
        assert run(tmp_path, *limit) == 2
        assert "rows.jsonl.gz: its content has changed since this run read it" in errors(tmp_path)
    path.write_bytes(whole)
    assert run(tmp_path) == 0
    assert ids(tmp_path) == list(range(300))


def test_lines_appended_in_mid_run_are_not_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"

    def begin(slower: int) -> Any:
        write_source(path, ROWS)
        write(tmp_path, path.name, ms_per_row=10 * slower)
        return start(tmp_path)

    process = catch(tmp_path, begin, lambda: 250 < committed(tmp_path) < COUNT // 2, "some commits")
    with path.open("a") as file:
        file.write(json.dumps({"id": COUNT, "question": "new"}) + "\n")
    process.send_signal(signal.SIGCONT)
    assert end_of(process, tmp_path) == 0
    assert ids(tmp_path) == list(range(COUNT))


def test_a_retry_over_a_source_that_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_source(path, ROWS)
    write(tmp_path, path.name)
    refusing = yaml.safe_load((tmp_path / "pipeline.yaml").read_text())
    refusing["models"]["a"]["engine_options"]["fail_on"] = "is 1997"
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(refusing))
    assert run(tmp_path) == 0
    write_source(path, swapped(190, COUNT - 3))
    again = ("--set", "models.a.engine_options.fail_on=nothing")
    assert end_of(start(tmp_path, *again, command="retry", target="out"), tmp_path) == 2
    assert f"{path.name}: its content has changed since this run read it" in errors(tmp_path)
    write_source(path, ROWS)
    assert end_of(start(tmp_path, *again, command="retry", target="out"), tmp_path) == 0
    assert ids(tmp_path) == list(range(COUNT))


def test_one_file_named_twice_gives_its_rows_twice(tmp_path: Path) -> None:
    write_source(tmp_path / "rows.jsonl", ROWS[:300])
    write(tmp_path, ["rows.jsonl", "rows.jsonl"])
    assert run(tmp_path) == 0
    assert ids(tmp_path) == [*range(300), *range(300)]
    assert ds.dataset(tmp_path / "out" / "data", format="json").count_rows() == 600
