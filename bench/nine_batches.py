"""Two serial replicas of 2 ms a row, at nine pairs of loader batch and step batch: all full, all alike.

--steps K: K steps one after another share the pool's two replicas, each with its share of the rows to keep the work.

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


def pipeline(source: Path, loader_batch: int, step_batch: int, steps: int) -> dict[str, Any]:
    def step(number: int) -> dict[str, Any]:
        read = "text" if number == 0 else f"answer_{number - 1}"
        ask = {"prompt": f"{{{{ {read} }}}}", "output": f"answer_{number}"}
        return {"model": "writer", "batch_size": step_batch, **ask}

    return {
        "models": {"writer": {"ref": "mock:serial", "replicas": 2, "engine_options": {"ms_per_row": MS_PER_ROW}}},
        "source": {"path": str(source), "batch_size": loader_batch},
        "steps": [{"generate": step(number)} for number in range(steps)],
        "sink": {"path": "unused"},
    }


def span_ratio(run: Finished, requests: int) -> float:
    start = min(run.ready_s)
    ideal_s = earliest_end_s(run.ready_s, 1, requests * MS_PER_ROW / 1e3) - start
    return float((run.pool_end_s - start) / ideal_s)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    busy, spans = [], []
    with work_folder() as folder:
        count = arguments.rows // arguments.steps
        rows = ({"id": n, "text": f"row {n}"} for n in range(count))
        source = write_jsonl(folder / "rows.jsonl", rows)
        for loader in LOADER_BATCHES:
            for step in STEP_BATCHES:
                run = run_pipeline(folder, pipeline(source, loader, step, arguments.steps), f"{loader}-{step}")
                busy.append(min(run.busy_fractions))
                spans.append(span_ratio(run, count * arguments.steps))
                say(f"loader {loader:>4}, step {step:>4}: busy {busy[-1]:.3f}, span {spans[-1]:.3f} x ideal")
    spread = max(spans) / min(spans)
    name = "nine batches" if arguments.steps == 1 else f"nine batches, {arguments.steps} steps in one pool"
    return [
        Figure(name, "busy fraction, lowest of 9", f"{min(busy):.3f}", ">= 0.98", min(busy) >= 0.98),
        Figure(name, "span / ideal, highest of 9", f"{max(spans):.3f}", "<= 1.03", max(spans) <= 1.03),
        Figure(name, "slowest pair / fastest pair", f"{spread:.3f}", "alike", spread <= 1.02),
    ]


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], rows=4000, steps=1)
