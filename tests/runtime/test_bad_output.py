"""Output folders that can't be used, runs that are disturbed, and what is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import bad_input_support as support
import pytest
from bad_input_support import PIPELINE, SHORT, Here, lines, questions, write
from run_support import committed, end_of, errors, output, processes_of, start, summary, wait_until

# ---------------------------------------------------------------- the output folder


@pytest.mark.process
def test_an_output_folder_of_another_run_is_refused_with_the_difference(here: Here) -> None:
    folder = write(here.folder)
    support.run(folder).says(0)
    before = output(folder)
    for old, new, words in (
        ("{{ question }}", "Say: {{ question }}", "prompt: was '{{ question }}', is 'Say: {{ question }}'"),
        ("mock:test", "mock:other", "model.ref: was 'mock:test', is 'mock:other'"),
        ("max_tokens: 3", "max_tokens: 4", "max_tokens: was 3, is 4"),
        ("path: out", "path: out, format: jsonl", "sink.format: was 'parquet', is 'jsonl'"),
    ):
        write(folder, PIPELINE.replace(old, new))
        here.run().refuses(
            "out: the output folder contains another run", words, "choose another output folder with --out"
        )
    write(folder, source=questions(21))
    here.run().refuses("out: the output folder contains another run", "q.jsonl.size_bytes")
    assert output(folder) == before


@pytest.mark.process
def test_another_number_of_replicas_and_another_batch_size_go_on(tmp_path: Path) -> None:
    write(tmp_path)
    support.run(tmp_path, "--limit", "5").says(0)
    changed = PIPELINE.replace("replicas: 1", "replicas: 2, batch_size: 50")
    changed = changed.replace("{path: q.jsonl}", "{path: q.jsonl, batch_size: 7}")
    write(tmp_path, changed.replace("max_tokens: 3", "max_tokens: 3, batch_size: 1000"))
    support.run(tmp_path).says(0, "20 out", "5 reused")
    assert [row["question"] for row in output(tmp_path)] == [f"q{number}" for number in range(20)]


@pytest.mark.parametrize(
    ("source", "out", "words"),
    [
        ("in", "in", "overlaps the input 'in'"),
        ("q.jsonl", "q.jsonl", "overlaps the input 'q.jsonl'"),
        ("in", "in/out", "overlaps the input 'in'"),
        ("in", "link", "overlaps the input 'in'"),
        ("out/data", "out", "overlaps the input 'out/data'"),
        ("in/*", "in/out", "the pattern 'in/*' matches files in the output folder"),
        ("in/**/*.parquet", "in/out", "matches files in the output folder"),
        ("in/q.jsonl", "in", "contains files that are not a Penstock run (q.jsonl); it was not changed"),
        ("q.jsonl", ".", "contains files that are not a Penstock run"),
        ("q.jsonl", "file", "the output path is a file"),
        ("q.jsonl", "file/out", "can't make the output folder: Not a directory"),
        ("q.jsonl", "/proc/out", "/proc/out: can't make the output folder"),
        ("q.jsonl", "o" * 300, "File name too long"),
        ("q.jsonl", "", "the output folder (--out) has no name"),
    ],
)
def test_an_output_folder_that_can_not_be_meant(here: Here, source: str, out: str, words: str) -> None:
    folder = write(here.folder, PIPELINE.replace("{path: q.jsonl}", f'{{path: "{source}"}}'))
    (folder / "in").mkdir()
    (folder / "in" / "q.jsonl").write_text(SHORT)
    (folder / "link").symlink_to("in")
    (folder / "out" / "data").mkdir(parents=True)
    (folder / "file").write_text("precious")
    here.run("--out", out).refuses(words)
    assert (folder / "file").read_text() == "precious"
    assert sorted(entry.name for entry in (folder / "in").iterdir()) == ["q.jsonl"]


@pytest.mark.process
@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        ("run.json", 2, "run.json: this run.json was not written by Penstock, or is damaged"),
        (".penstock/manifest/00000001.json", 1, "Restore it from a copy, or start over"),
        ("data/part-00000.parquet", 1, "this committed part is missing. Restore it"),
    ],
)
def test_a_run_whose_records_are_damaged(here: Here, damage: str, code: int, words: str) -> None:
    folder = write(here.folder)
    support.run(folder).says(0)
    if damage.startswith("data"):
        (folder / "out" / damage).unlink()
    else:
        (folder / "out" / damage).write_text("{")
    here.run().says(code, words)


@pytest.mark.process
def test_two_coordinators_on_one_folder(tmp_path: Path) -> None:
    slow = PIPELINE.replace("replicas: 1", "engine_options: {ms_per_row: 400}") + "commit_every_s: 0.2\n"
    write(tmp_path, slow, questions(100))
    (tmp_path / "pipeline.yaml").write_text(slow)
    first = start(tmp_path)
    wait_until(lambda: committed(tmp_path) > 3, "the first to commit")
    support.run(tmp_path).refuses(f"out: process {first.pid} on host", "Wait for it, stop it, or take over the run")
    # The first would need 40 s for what is left; a loaded machine may take some of them to start the second.
    support.run(tmp_path, "--takeover", "--set", "models.writer.engine_options.ms_per_row=1").says(0, "100 out")
    assert end_of(first, tmp_path) == 1
    assert "has taken over this run" in errors(tmp_path)
    assert [row["question"] for row in output(tmp_path)] == [f"q{number}" for number in range(100)]
    assert summary(tmp_path)["status"] == "done"


@pytest.mark.process
def test_two_coordinators_that_continue_from_a_limit(tmp_path: Path) -> None:
    """The run is finished, as far as the first start was to take it; the second has not committed anything yet."""
    slow = PIPELINE.replace("replicas: 1", "engine_options: {ms_per_row: 2000, slots: 1}") + "commit_every_s: 0.2\n"
    write(tmp_path, slow, questions(40))
    (tmp_path / "pipeline.yaml").write_text(slow)
    fast = ("--set", "models.writer.engine_options.ms_per_row=1")
    support.run(tmp_path, "--limit", "5", *fast).says(0, "5 out")
    first = start(tmp_path)
    wait_until(lambda: processes_of(tmp_path), "the first to have a replica")
    first.send_signal(signal.SIGSTOP)
    assert committed(tmp_path) == 5
    support.run(tmp_path, *fast).refuses(
        f"out: process {first.pid} on host", "Wait for it, stop it, or take over the run"
    )
    first.send_signal(signal.SIGCONT)
    first.kill()
    first.wait()
    support.run(tmp_path, *fast).says(0, "40 out")
    assert [row["question"] for row in output(tmp_path)] == [f"q{number}" for number in range(40)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, where this user may make one."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.process
def test_a_full_disk_pauses_the_run_until_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    rows = lines(*({"question": f"q{number}", "noise": os.urandom(2000).hex()} for number in range(600)))
    (write(tmp_path, PIPELINE + "commit_every_s: 0.2\n", rows) / "p.yaml").rename(tmp_path / "pipeline.yaml")
    process = start(tmp_path, "--out", "small/out")
    wait_until(lambda: "disk full: " in errors(tmp_path), "the disk to be full")
    assert process.poll() is None and "free in small/out; continues when there is space" in errors(tmp_path)
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    assert end_of(process, tmp_path) == 0, errors(tmp_path)
    assert [row["question"] for row in output(small_disk)] == [f"q{number}" for number in range(600)]


# ---------------------------------------------------------------- interrupts


@pytest.mark.process
def test_a_run_that_is_stopped_at_once_counts_what_is_safe(tmp_path: Path) -> None:
    slow = PIPELINE.replace("replicas: 1", "engine_options: {ms_per_row: 40}") + "commit_every_s: 600\n"
    (write(tmp_path, slow, questions(200)) / "p.yaml").rename(tmp_path / "pipeline.yaml")
    process = start(tmp_path)
    wait_until(lambda: '"status":"running"' in errors(tmp_path), "requests in flight")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert end_of(process, tmp_path) == 130
    assert "stopped immediately after" in errors(tmp_path)
    assert summary(tmp_path)["rows"]["out"] == len(output(tmp_path))
    write(tmp_path, PIPELINE, questions(200))
    support.run(tmp_path).says(0, "200 out")


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_run_begins(number: signal.Signals, tmp_path: Path) -> None:
    """While it reads the pipeline file, which is a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "pipeline.yaml")
    process = start(tmp_path)
    with (tmp_path / "pipeline.yaml").open("w"):  # once it is open at the other end too
        process.send_signal(number)
        assert end_of(process, tmp_path) == 75
    assert errors(tmp_path) == "penstock: stopped; run the same command to start or continue the run\n"
    assert not (tmp_path / "out").exists()
