"""How long a person waits: first request after start with a mock, `import penstock`, `penstock --help`; medians."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from common import Figure, main, run_pipeline, work_folder, write_jsonl

PIPELINE = {
    "models": {"writer": {"ref": "mock:start", "replicas": 2}},
    "source": {"path": ""},
    "steps": [{"generate": {"model": "writer", "prompt": "{{ text }}", "output": "answer"}}],
    "sink": {"path": "unused"},
}
TIMED_IMPORT = "import time; t = time.perf_counter(); import penstock; print(time.perf_counter() - t)"


def first_request_s(repeats: int) -> float:
    with work_folder() as folder:
        source = write_jsonl(folder / "rows.jsonl", ({"text": f"row {n}"} for n in range(100)))
        pipeline = {**PIPELINE, "source": {"path": str(source)}}
        runs = [run_pipeline(folder, pipeline, f"run-{n}") for n in range(repeats)]
    return statistics.median(run.summary["first_request_s"] for run in runs)


def import_s(repeats: int) -> float:
    command = [sys.executable, "-c", TIMED_IMPORT]
    return statistics.median(float(subprocess.check_output(command)) for _ in range(repeats))


def help_s(repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "penstock.cli", "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.monotonic() - began)
    return statistics.median(times)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    figures = []
    for what, seconds, reach_s in [
        ("first request after start", first_request_s(arguments.repeats), 1.0),
        ("import penstock", import_s(arguments.repeats), 0.1),
        ("penstock --help", help_s(arguments.repeats), 0.3),
    ]:
        reach = f"< {reach_s * 1e3:.0f} ms"
        figures.append(Figure("start", what, f"{seconds * 1e3:.0f} ms", reach, seconds < reach_s))
    return figures


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], repeats=10)
