"""Runs of whole pipelines as processes: start, wait for a state, kill, resume, read what came out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import yaml

from command_server import Command, start_command
from penstock.errors import RunMismatch
from penstock.ledger.view import read_run
from penstock.testing.executors import writers_below

STARTED: list[Command] = []  # ended by a fixture where a test did not
WAIT_LIMIT_S = 240.0  # far more than anything here takes, also on a busy machine; a wait that long is a failure


def write_rows(folder: Path, count: int, name: str = "rows.jsonl") -> None:
    lines = (json.dumps({"id": number, "question": f"what is {number}?"}) for number in range(count))
    (folder / name).write_text("".join(line + "\n" for line in lines))


def pipeline(folder: Path, steps: list[dict[str, Any]] | None = None, **model: Any) -> Path:
    """A pipeline file over rows.jsonl with one mock model; `model` are its engine options, `replicas` its number."""
    replicas = model.pop("replicas", 2)
    keys = {key: model.pop(key) for key in ("progress_timeout_s",) if key in model}
    top = {key: model.pop(key) for key in ("max_dead", "commit_every_s") if key in model}
    written = {
        "models": {"writer": {"ref": "mock:test", "replicas": replicas, "engine_options": model, **keys}},
        "source": {"path": "rows.jsonl"},
        "steps": steps or [{"generate": {"model": "writer", "prompt": "{{ question }}", "output": "answer"}}],
        "sink": {"path": "out"},
        "commit_every_s": 0.3,
        **top,
    }
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(written, sort_keys=False))
    return path


def start(
    folder: Path, *arguments: str, command: str = "run", target: str = "pipeline.yaml", log: str = "stderr.txt"
) -> Command:
    process = start_command(command, target, "--display", "jsonl", *arguments, folder=folder, stderr=folder / log)
    STARTED.append(process)
    return process


def run(folder: Path, *arguments: str) -> int:
    return end_of(start(folder, *arguments), folder)


def end_of(process: Command, folder: Path, limit_s: float = WAIT_LIMIT_S) -> int:
    """The exit code of a run; one that does not end fails with what it has said so far."""
    try:
        return process.wait(timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"the run had not ended after {limit_s:.0f} s:\n{errors(folder)[-3000:]}") from None


def catch(
    folder: Path,
    begin: Callable[[int], Command],
    there: Callable[[], Any],
    what: str,
    undo: Callable[[], None] | None = None,
) -> Command:
    """A run that is held (SIGSTOP) in a state that `there` tells, far from its end: let it go on with `SIGCONT`.

    A machine may stall for longer than a whole run takes, and what is done to the run then comes too late to mean
    anything. So `there` is asked again when the run stands still, and where it has got past the state, it is begun
    anew: `begin` gets how many times slower it is to be. `undo` takes back what it has done: the whole output.
    """
    end = time.monotonic() + WAIT_LIMIT_S
    for slower in (1, 8, 64):
        process = begin(slower)
        while process.poll() is None:
            assert time.monotonic() < end, f"waited {WAIT_LIMIT_S:.0f} s for {what}:\n{errors(folder)[-3000:]}"
            if there():
                process.send_signal(signal.SIGSTOP)
                if process.poll() is None and there():
                    return process
                process.kill()
            time.sleep(0.02)
        wait_until(lambda: not everything_below(folder), "the replicas to be gone")
        if undo is None:
            shutil.rmtree(folder / "out", ignore_errors=True)
        else:
            undo()
    raise AssertionError(f"a run ends too soon for {what}")


def wait_until(true: Callable[[], Any], what: str, limit_s: float = WAIT_LIMIT_S) -> None:
    """Poll, since what is waited for happens in other processes."""
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, f"waited {limit_s:.0f} s for {what}"
        time.sleep(0.02)


def committed(folder: Path) -> int:
    """Source rows that are durably ended."""
    try:
        return read_run(folder / "out").counts.ended_sources
    except RunMismatch:
        return 0


def processes_of(folder: Path) -> dict[int, str]:
    """Host processes whose log lies in this folder: pid -> replica, found by their open log."""
    found = {}
    for pid in everything_below(folder):
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"--fd" in command and b"guardian" not in command:
                found[pid] = Path(os.readlink(f"/proc/{pid}/fd/1")).stem
    return found


def everything_below(folder: Path) -> list[int]:
    """All processes, guardians included, that write to a log of this folder."""
    return writers_below(folder / "out" / "logs")


def output(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "out" / "data").glob("*.parquet"))
    return [row for file in files for row in ds.dataset(file).to_table().to_pylist()]


def output_lines(folder: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines output."""
    parts = sorted((folder / "out" / "data").iterdir())
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def dead(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "out" / "dead").glob("*.parquet"))
    return [row for file in files for row in ds.dataset(file).to_table().to_pylist()]


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "summary.json").read_text())
    return found


def errors(folder: Path) -> str:
    return (folder / "stderr.txt").read_text()
