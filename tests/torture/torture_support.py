"""What torture works on: small runs that use every kind of step, each life in a process of its own, and the comparison
with a run that nobody has disturbed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from penstock import faults
from penstock.errors import PenstockError
from penstock.ledger import joining as tails
from penstock.runtime.retry.retry import retry
from penstock.runtime.run.api import RunOptions, run
from penstock.spec.load import load_pipeline
from penstock.testing.executors import writers_below

tails.MAX_TAIL = 1  # these runs are small: a commit that finds a part joins what is there

ROWS = 48
STEPS = """\
def draft(row):
    return {"draft": f"draft of {row['id']}"}

def split(row):
    return [{"part": part} for part in range(1 + row["id"] % 2)]
"""
VARIANTS = ("streaming", "phases", "asleep")
# Variants whose lives differ in more than where they die: in their --limit, or in what has become of the source.
LIMITED = {"limited": "streaming", "phases-limited": "phases"}
CHANGED = {"swapped": "streaming", "cut": "phases"}
LIMITS = (None, 5, 20, 40, ROWS)
TWICE = "twice"  # as streaming, over a file that the source names twice; a retry of it
ORPHANS_LIMIT_S = 60.0
PROGRESS_TIMEOUT_S = 2.0


class Content(NamedTuple):
    """What a finished run has come to: the bytes of its output in order, its dead rows, its counts."""

    data: bytes
    dead: list[tuple[Any, ...]]
    rows: dict[str, int]


def write(folder: Path, variant: str, **engine_options: Any) -> None:
    """A pipeline and its rows. One line is no JSON, one row is refused, some are filtered, some have two children."""
    slow = engine_options.pop("slow", 1)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": number, "q": f"q{number}."}) for number in range(ROWS)]
    lines[7] = '{"id": 7, "q"'
    (folder / "rows.jsonl").write_text("".join(line + "\n" for line in lines))
    (folder / "torture_steps.py").write_text(STEPS)
    options = {"slots": 3, "ms_per_row": 2 * slow, "fail_on": "9." if variant == TWICE else "q13.", **engine_options}
    models = {
        "a": {
            "ref": "mock:a",
            "replicas": 2,
            "load": "eager",
            "progress_timeout_s": PROGRESS_TIMEOUT_S,
            "engine_options": options,
        }
    }
    steps: list[dict[str, Any]] = [{"map": {"function": "torture_steps:draft"}}]
    steps += [{"generate": {"model": "a", "prompt": "{{ q }} {{ draft }}", "output": "one", "max_tokens": 3}}]
    steps += [{"filter": {"expr": "id % 5 != 2"}}]
    steps += [{"expand": {"function": "torture_steps:split"}}]
    if variant in ("streaming", TWICE):
        steps += [
            {"generate": {"model": "a", "prompt": "{{ part }} {{ one }}", "output": "two", "temperature": 1.0}},
        ]
    else:
        models["b"] = {
            "ref": "mock:b",
            "progress_timeout_s": PROGRESS_TIMEOUT_S,
            "engine_options": {"slots": 3, "ms_per_row": slow, "fail_on": "q29.1"},  # one of two children
        }
        steps += [
            {"generate": {"model": "b", "prompt": "{{ q }}{{ part }} {{ one }}", "output": "two", "temperature": 1.0}},
            {"generate": {"model": "a", "prompt": "{{ two }}", "output": "three", "max_tokens": 2}},
        ]
        if variant == "asleep":
            models["a"]["engine_options"] = {**options, "wake_ms": 1}
    written = {
        "models": models,
        "source": {"path": ["rows.jsonl", "rows.jsonl"] if variant == TWICE else "rows.jsonl"},
        "steps": steps,
        "sink": {"path": "out", "format": "jsonl"},
        "commit_every_s": 0.03,
        "max_dead": 10,
        "resources": {"load_strategy": "together" if variant in ("streaming", TWICE) else "phases"},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(written, sort_keys=False))


def run_again(folder: Path, finished: Path) -> None:
    """Make `folder` one whose lives run the dead rows of a finished run again, by engines that no longer refuse."""
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    (folder / "again").touch()


def live(folder: Path, setting: str | None = None, *, limit: int | None = None) -> int:
    """One life in a child that dies at the fault point, if it is one of the coordinator: its wait status."""
    return os.waitpid(begin(folder, setting, limit=limit), 0)[1]


def change(folder: Path, how: str) -> None:
    """Do something to the source; done once more it is what it was. Neither changes what has become of other rows."""
    path, aside = folder / "rows.jsonl", folder / "rows.aside"
    if how == "swapped":
        lines = path.read_text().splitlines(keepends=True)
        lines[3], lines[ROWS - 2] = lines[ROWS - 2], lines[3]
        path.write_text("".join(lines))
    elif aside.exists():
        os.replace(aside, path)
    else:
        shutil.copy(path, aside)
        os.truncate(path, path.stat().st_size * 2 // 3)


def refused(folder: Path, status: int) -> bool:
    """Whether a life ended because the source is not what it was."""
    said = (folder / "stderr.txt").read_text() if (folder / "stderr.txt").exists() else ""
    reasons = ("has changed since this run read it", "differs from the requested one in:\n  files.")
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) in (1, 2) and any(reason in said for reason in reasons)


def begin(folder: Path, setting: str | None = None, *, takeover: bool = False, limit: int | None = None) -> int:
    """A life in a child, which leads a process group of its own: its process id. Nothing is printed; errors go to
    stderr.txt. This process must have no thread."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            log = os.open(folder / "stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 2)
            os.chdir(folder)
            sys.path.insert(0, str(folder))
            if setting is not None:
                os.environ["PENSTOCK_FAULTPOINT"] = setting
                os.environ["PENSTOCK_FAULT_ONCE"] = str(folder / f"died-{time.monotonic_ns()}")
            faults.arm(setting)
            again = Path("again").exists()
            text = Path("pipeline.yaml").read_text()
            names = yaml.safe_load(text)["models"] if again else ()
            sets = [f"models.{name}.engine_options.fail_on=nothing" for name in names]
            pipeline = load_pipeline(text, "pipeline.yaml", sets)
            options = RunOptions(
                listener=lambda facts: None, interval_s=0.02, takeover=takeover, limit=limit, check=False
            )
            result = (retry if again else run)(pipeline, options)
            code = result.exit_code
            print(result.facts.reason, file=sys.stderr)
        except PenstockError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def died(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def content(folder: Path) -> Content:
    import pyarrow.parquet as pq

    out = folder / "out"
    data = b"".join(path.read_bytes() for path in sorted((out / "data").iterdir()))
    dead: list[tuple[Any, ...]] = []
    for path in sorted((out / "dead").iterdir()):
        for row in pq.read_table(path, partitioning=None, use_threads=False).to_pylist():
            dead.append((row["source"], row["row"], tuple(row["path"]), row["step"], row["code"], row["input"]))
    rows = json.loads((out / "summary.json").read_text())["rows"]
    return Content(data, sorted(dead), {key: rows[key] for key in ("in", "out", "dead", "filtered")})


def processes(folder: Path, what: bytes) -> list[int]:
    """Those of the run whose command line has `what`: --fd the hosts, guardian the guardians."""
    found = []
    for pid in leftovers(folder):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if what in command and (what == b"guardian") == (b"guardian" in command):
            found.append(pid)
    return sorted(found)


def leftovers(folder: Path) -> list[int]:
    """Processes that still write to a log of the run."""
    return writers_below(folder / "out" / "logs")


def no_orphans(folder: Path) -> None:
    until = time.monotonic() + ORPHANS_LIMIT_S
    while left := leftovers(folder):
        if time.monotonic() > until:
            raise AssertionError(f"processes {left} are still there, {ORPHANS_LIMIT_S:.0f} s after the run")
        time.sleep(0.02)


def differences(found: Content, wanted: Content) -> list[str]:
    """What a disturbed run has lost, has twice, or has otherwise."""
    told = []
    if found.data != wanted.data:
        lines, right = found.data.splitlines(), wanted.data.splitlines()
        told.append(
            f"the output differs: {len(lines)} lines of {len(right)}, {len(set(right) - set(lines))} missing, "
            f"{len(lines) - len(set(lines))} twice"
        )
    if found.dead != wanted.dead:
        told.append(f"the dead rows are {found.dead}, not {wanted.dead}")
    if found.rows != wanted.rows:
        told.append(f"the counts are {found.rows}, not {wanted.rows}")
    return told
