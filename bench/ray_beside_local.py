"""Two replicas on Ray against the same two as local processes: a mock that takes no time, and vLLM on the CPU.

Each pair runs one after the other and the median of the pairs' ratios is the figure, local time / Ray's: for the mock
from the first request to the run's end, everything committed; for vLLM the mean over the replicas of last response
minus the moment the replica was ready. Loading, and the start and the end of the fresh local Ray that `--executor ray`
makes, count for neither.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import free_mock
import vllm_two_replicas as vllm
from common import Figure, Finished, main, run_pipeline, say, work_folder, write_jsonl
from workload import mixed_rows


def flowing_s(run: Finished) -> float:
    return float(run.summary["wall_s"] - run.summary["first_request_s"])


def ratios(
    folder: Path, pipeline: dict[str, Any], pairs: int, time_of: Callable[[Finished], float], env: dict[str, str]
) -> list[float]:
    """Local time / Ray's, for each of the pairs."""
    found = []
    for number in range(pairs):
        times = []
        for executor in ("local", "ray"):
            run = run_pipeline(folder, pipeline, f"{executor}-{number}", env, options=("--executor", executor))
            times.append(time_of(run))
            shutil.rmtree(run.out)
        found.append(times[0] / times[1])
        say(f"  local {times[0]:.2f} s, Ray {times[1]:.2f} s: {found[-1]:.3f}")
    return found


def figure(what: str, found: list[float], reach: float) -> Figure:
    ratio = statistics.median(found)
    words = f"{what}: local time / Ray's, median of {len(found)} ({min(found):.3f} to {max(found):.3f})"
    return Figure("ray beside local", words, f"{ratio:.3f}", f">= {reach:.2f}", ratio >= reach)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    figures = []
    with work_folder() as folder:
        source = write_jsonl(folder / "rows.jsonl", ({"id": n, "text": f"row {n}"} for n in range(arguments.rows)))
        if arguments.mock:
            mock = free_mock.pipeline(source)
            figures.append(figure("free mock", ratios(folder, mock, arguments.pairs, flowing_s, {}), 0.8))
        python = os.environ.get("PENSTOCK_VLLM_PYTHON")
        if not python:
            return [*figures, Figure("ray beside local", "vLLM: skipped, PENSTOCK_VLLM_PYTHON is not set", "")]
        model = vllm.made_model(python, folder)
        rows = write_jsonl(folder / "mixed.jsonl", mixed_rows(arguments.vllm_rows))
        env = {"VLLM_CPU_KVCACHE_SPACE": vllm.KV_CACHE_GIB}
        found = ratios(folder, vllm.pipeline(python, model, rows), arguments.pairs, vllm.busy_span_s, env)
        figures.append(figure("vLLM on the CPU", found, 0.9))
    return figures


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], rows=300_000, vllm_rows=1000, pairs=3, mock=1)
