"""Two serial replicas of 2 ms a row, at nine pairs of loader batch and step batch: all full, all alike.

Busy fraction: the lower of the two replicas'. Span: from the moment the first replica was ready to the last response,
against the earliest possible end of that work, given when each replica was ready (`common.earliest_end_s`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import Figure, Finished, earliest_end_s, main, run_pipeline, say, work_folder, write_jsonl

MS_PER_ROW = 2.0
LOADER_BATCHES = (1, 50, 2000)
STEP_BATCHES = (1, 50, 1000)


def pipeline(source: Path, loader_batch: int, step_batch: int) -> dict[str, Any]:
    step = {"model": "writer", "prompt": "{{ text }}", "output": "answer", "batch_size": step_batch}
    return {
        "models": {"writer": {"ref": "mock:serial", "replicas": 2, "engine_options": {"ms_per_row": MS_PER_ROW}}},
        "source": {"path": str(source), "batch_size": loader_batch},
        "steps": [{"generate": step}],
        "sink": {"path": "unused"},
    }


def span_ratio(run: Finished, rows: int) -> float:
    start = min(run.ready_s)
    ideal_s = earliest_end_s(run.ready_s, 1, rows * MS_PER_ROW / 1e3) - start
    return float((run.pool_end_s - start) / ideal_s)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    busy, spans = [], []
    with work_folder() as folder:
        rows = ({"id": n, "text": f"row {n}"} for n in range(arguments.rows))
        source = write_jsonl(folder / "rows.jsonl", rows)
        for loader in LOADER_BATCHES:
            for step in STEP_BATCHES:
                run = run_pipeline(folder, pipeline(source, loader, step), f"{loader}-{step}")
                busy.append(min(run.busy_fractions))
                spans.append(span_ratio(run, arguments.rows))
                say(f"loader {loader:>4}, step {step:>4}: busy {busy[-1]:.3f}, span {spans[-1]:.3f} x ideal")
    spread = max(spans) / min(spans)
    return [
        Figure("nine batches", "busy fraction, lowest of 9", f"{min(busy):.3f}", ">= 0.98", min(busy) >= 0.98),
        Figure("nine batches", "span / ideal, highest of 9", f"{max(spans):.3f}", "<= 1.03", max(spans) <= 1.03),
        Figure("nine batches", "slowest pair / fastest pair", f"{spread:.3f}", "alike", spread <= 1.02),
    ]


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], rows=4000)
