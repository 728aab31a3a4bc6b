"""Rows a second through a mock that takes no time: JSONL in, Parquet out, two replica processes.

From the first request to the end of the process (everything committed), and over the whole process, start included.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import Figure, main, run_pipeline, work_folder, write_jsonl


def pipeline(source: Path) -> dict[str, Any]:
    return {
        "models": {"writer": {"ref": "mock:free", "replicas": 2, "engine_options": {"slots": 256}}},
        "source": {"path": str(source)},
        "steps": [{"generate": {"model": "writer", "prompt": "{{ text }}", "output": "answer"}}],
        "sink": {"path": "unused"},
    }


def measure(arguments: argparse.Namespace) -> list[Figure]:
    with work_folder() as folder:
        source = write_jsonl(folder / "rows.jsonl", ({"id": n, "text": f"row {n}"} for n in range(arguments.rows)))
        run = run_pipeline(folder, pipeline(source))
    flowing = arguments.rows / (run.wall_s - run.summary["first_request_s"])
    whole = arguments.rows / run.wall_s
    cpu_us = run.working_cpu_s / arguments.rows * 1e6
    return [
        Figure("free mock", "rows/s, first request to done", f"{flowing:,.0f}", ">= 30,000", flowing >= 30_000),
        Figure("free mock", "rows/s, whole process", f"{whole:,.0f}"),
        Figure("free mock", "coordinator CPU a row, from the first request", f"{cpu_us:.0f} us"),
    ]


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], rows=300_000)
