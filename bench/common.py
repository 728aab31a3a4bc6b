"""What the benchmarks share: run a pipeline as a user would, read its summary, print figures.

Each benchmark is one command that prints its figures beside what they should reach, and with --json FILE also writes
them as data. None fails because a figure is not reached: that is for the reader. It fails when a run fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Figure:
    """One measured figure. `reached` is None where there is nothing to reach."""

    benchmark: str
    what: str
    measured: str
    reach: str = ""
    reached: bool | None = None


@dataclasses.dataclass(frozen=True)
class Finished:
    """One ended command. CPU and memory are its own, without children; working: from the first request on.

    tree_bytes: the peak of its processes together, where that was asked for
    """

    wall_s: float
    cpu_s: float
    working_cpu_s: float
    peak_bytes: int
    out: Path
    summary: dict[str, Any]
    tree_bytes: int = 0

    @property
    def pool(self) -> dict[str, Any]:
        """The figures of the run's first pool."""
        return next(iter(self.summary["models"].values()))

    @property
    def pool_end_s(self) -> float:
        """The last response of the first pool; the run's own where there is one pool."""
        return float(self.summary["last_response_s"])

    @property
    def ready_s(self) -> list[float]:
        """When each replica was ready; without those that never were."""
        return [replica["ready_s"] for replica in self.pool["replicas"] if replica["ready_s"] is not None]

    @property
    def busy_fractions(self) -> list[float]:
        return [replica["busy_fraction"] or 0.0 for replica in self.pool["replicas"]]


def run_pipeline(
    folder: Path,
    pipeline: dict[str, Any],
    name: str = "run",
    env: dict[str, str] | None = None,
    *,
    options: Sequence[str] = (),
    tree: bool = False,
) -> Finished:
    """`penstock run` in a fresh output folder below `folder`. Raises SystemExit with its words when it fails.

    options  further ones of the command
    tree     follow the memory of all its processes together, too
    """
    file, out, log = folder / f"{name}.yaml", folder / f"{name}.out", folder / f"{name}.log"
    file.write_text(json.dumps(pipeline))  # JSON is YAML
    command = [sys.executable, "-m", "penstock.cli", "run", str(file), "--out", str(out), "--display", "none", *options]
    began = time.monotonic()
    with log.open("wb") as words:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, env={**os.environ, **(env or {})}
        )
        watch = Watch(process.pid, tree=tree)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # not reaped yet: its times can still be read
        wall_s = time.monotonic() - began
        cpu_s = own_cpu_s(process.pid)
        code = process.wait()
        peak_bytes = watch.stop()
    if code != 0:
        sys.exit(f"{' '.join(command)}: exit code {code}\n{log.read_text(errors='replace')[-4000:]}")
    summary = json.loads((out / "summary.json").read_text())
    working_cpu_s = cpu_s - watch.cpu_s_by(summary["first_request_s"] or 0.0)
    return Finished(wall_s, cpu_s, working_cpu_s, peak_bytes, out, summary, watch.tree_bytes)


def own_cpu_s(pid: int) -> float:
    """User and system seconds of one process and its threads, without its children."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def tree_bytes(pid: int) -> int:
    """Memory of a process and all that descend from it: the sum of their proportional shares (PSS), so that pages
    shared after a fork count once."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(OSError):
                rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                total += int(rollup.partition("\nPss:")[2].split()[0]) * 1024
    return total


class Watch:
    """Follows one process until it ends: its peak resident memory (VmHWM), and how much CPU it had used by when.

    tree: also the peak of its processes together, sampled every 0.25 s, into `tree_bytes`
    """

    def __init__(self, pid: int, *, tree: bool = False) -> None:
        self._pid = pid
        self._began = time.monotonic()
        self._peak_bytes = 0
        self.tree_bytes = 0
        self._cpu_s: list[tuple[float, float]] = [(0.0, 0.0)]
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._follow, daemon=True)]
        if tree:
            self._threads.append(threading.Thread(target=self._follow_tree, daemon=True))
        for thread in self._threads:
            thread.start()

    def _follow(self) -> None:
        while not self._ended.wait(0.05):
            try:
                for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        self._peak_bytes = int(line.split()[1]) * 1024
                self._cpu_s.append((time.monotonic() - self._began, own_cpu_s(self._pid)))
            except OSError:
                return

    def _follow_tree(self) -> None:
        while not self._ended.wait(0.25):
            self.tree_bytes = max(self.tree_bytes, tree_bytes(self._pid))

    def stop(self) -> int:
        """End, and return the peak in bytes."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        return self._peak_bytes

    def cpu_s_by(self, moment_s: float) -> float:
        """CPU seconds used by `moment_s` after the start, to the last sample before it."""
        return max(cpu_s for at_s, cpu_s in self._cpu_s if at_s <= moment_s)


def end_tree(pid: int) -> None:
    """Kill a process and everything that descends from it: engines leave children that hold memory and a core."""
    try:
        process = psutil.Process(pid)
        victims = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def earliest_end_s(ready_s: list[float], slots: int, work_s: float) -> float:
    """When `work_s` seconds of work can end at the earliest on replicas of `slots` slots, each ready at its time.

    No slot works before its replica is ready and none rests afterwards: the least T with
    sum over replicas of slots x max(0, T - ready) = work.
    """
    ready = sorted(ready_s)
    for used in range(1, len(ready) + 1):
        end = (work_s / slots + sum(ready[:used])) / used
        if used == len(ready) or end <= ready[used]:
            return end
    raise ValueError("no replica")


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder that is gone afterwards. BENCH_FOLDER names another place for it than the system's."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=os.environ.get("BENCH_FOLDER")) as folder:
        yield Path(folder)


def show(figures: list[Figure]) -> str:
    """The figures as a table in plain text."""
    words = {True: "reached", False: "NOT REACHED", None: ""}
    rows = [("benchmark", "figure", "measured", "to reach", "")]
    rows += [(f.benchmark, f.what, f.measured, f.reach, words[f.reached]) for f in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main(measure: Callable[[argparse.Namespace], list[Figure]], about: str, **options: int) -> None:
    """Run one benchmark. `options` are its integer flags with their defaults."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    for name, default in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"default {default}")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what a benchmark started is ended
    figures = measure(arguments)
    print(show(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps([dataclasses.asdict(figure) for figure in figures]))


def host_of(log: Path) -> int:
    """The host process that writes to this log."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                if os.readlink(entry / "fd" / "1") == str(log) and b"--fd" in command and b"guardian" not in command:
                    return int(entry.name)
            except OSError:
                continue
    raise SystemExit(f"no process writes to {log}")


def say(message: str) -> None:
    """A line on how far a benchmark is; stdout is for the table."""
    print(message, file=sys.stderr, flush=True)
