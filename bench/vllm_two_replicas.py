"""Real vLLM on the CPU, the mixed workload, two one-core replicas: Penstock beside bare engines and Ray Data LLM.

Bare: two engines, each fed its half (by index) at once; the mean of their two times is what perfect balance would give.
Penstock: `penstock run` with two replicas, the same model, dtype, context and cache. Its time is the mean over the
replicas of last response minus the moment the replica was ready (or the first request), so that loading counts for
neither side; the plain span is shown beside it. The bare engines load once, empty their prefix cache before each pass
and are stopped (SIGSTOP) while Penstock runs. Pairs are interleaved and the median of their ratios is the figure.
Ray Data LLM runs once at each setting; its best counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import Figure, Finished, end_tree, main, run_pipeline, say, work_folder, write_jsonl
from workload import mixed_rows

HERE = Path(__file__).resolve().parent
KV_CACHE_GIB = "1"
RAY_SETTINGS = ((32, 8), (128, 4))  # batch size (32 is its default) and batches at a time


class BareEngine:
    """One process with one vLLM engine, bound to one core; see peers/bare_vllm.py."""

    def __init__(self, python: str, model: Path, rows: Path, core: int, log: Path) -> None:
        env = {**os.environ, "VLLM_CPU_OMP_THREADS_BIND": str(core), "VLLM_CPU_KVCACHE_SPACE": KV_CACHE_GIB}
        command = [python, str(HERE / "peers" / "bare_vllm.py"), str(model), str(rows)]
        with log.open("wb") as words:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                env=env,
                text=True,
                process_group=0,
            )
        self._log = log

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the bare engine ended:\n{self._log.read_text(errors='replace')[-4000:]}")
        return dict(json.loads(line))

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def end(self) -> None:
        end_tree(self._process.pid)
        self._process.wait()


@contextlib.contextmanager
def bare_engines(python: str, model: Path, rows: list[dict[str, Any]], folder: Path) -> Iterator[list[BareEngine]]:
    halves = [write_jsonl(folder / f"half-{k}.jsonl", rows[k::2]) for k in range(2)]
    engines = [BareEngine(python, model, half, k, folder / f"bare-{k}.log") for k, half in enumerate(halves)]
    try:
        for engine in engines:
            engine.answer()
        yield engines
    finally:
        for engine in engines:
            engine.end()


def bare_pass_s(engines: list[BareEngine]) -> float:
    """Mean time of the two engines on their halves, both at once."""
    for engine in engines:
        engine.send(signal.SIGCONT)
        engine.go()
    spans = [float(engine.answer()["span_s"]) for engine in engines]
    for engine in engines:
        engine.send(signal.SIGSTOP)
    say(f"  bare: {spans[0]:.2f} s and {spans[1]:.2f} s")
    return statistics.mean(spans)


def pipeline(python: str, model: Path, source: Path) -> dict[str, Any]:
    sampling = {"max_tokens": "{{ n }}", "temperature": 0.0, "ignore_eos": True}
    step = {"model": "lm", "prompt": "{{ prompt }}", "output": "answer", **sampling}
    lm = {"ref": str(model), "engine": "vllm", "python": python, "replicas": 2, "max_model_len": 1024}
    return {
        "models": {"lm": lm},
        "source": {"path": str(source)},
        "steps": [{"generate": step}],
        "sink": {"path": "unused"},
    }


def busy_span_s(run: Finished) -> float:
    """Mean over the replicas of the time from ready (or the first request) to the last response."""
    first, last = run.summary["first_request_s"], run.summary["last_response_s"]
    busy_s = statistics.mean(last - max(first, ready) for ready in run.ready_s)
    shares = ", ".join(f"{share:.3f}" for share in run.busy_fractions)
    say(f"  penstock: {busy_s:.2f} s (span {last - first:.2f} s, busy {shares})")
    return busy_s


def ray_span_s(python: str, model: Path, source: Path, log: Path) -> float | None:
    """The best span of Ray Data LLM over its settings; None where it is not installed."""
    if subprocess.run([python, "-c", "import ray.data"], capture_output=True).returncode != 0:
        say("NO RAY: the environment of PENSTOCK_VLLM_PYTHON has no Ray; `make bench-env` installs it")
        return None
    spans = []
    for batch_size, batches in RAY_SETTINGS:
        settings = [str(model), str(source), str(batch_size), str(batches)]
        command = [python, str(HERE / "peers" / "ray_data_llm.py"), *settings]
        env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": KV_CACHE_GIB}
        with log.open("wb") as words:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, env=env)
        try:
            out, _ = process.communicate()
        finally:
            end_tree(process.pid)
        if not out:
            sys.exit(f"Ray Data LLM ended without a figure:\n{log.read_text(errors='replace')[-4000:]}")
        spans.append(float(json.loads(out)["span_s"]))
        say(f"  Ray Data LLM, batch {batch_size}, {batches} at a time: {spans[-1]:.2f} s")
    return min(spans)


def made_model(python: str, folder: Path) -> Path:
    model = folder / "model"
    subprocess.run([python, str(HERE / "make_model.py"), str(model)], check=True, stdout=sys.stderr)
    return model


def figures_of(
    spans: list[float], ratios: list[float], cpu_ms: list[tuple[float, float]], tokens: int, ray_s: float | None
) -> list[Figure]:
    name, ratio = "vllm, two replicas", statistics.median(ratios)
    cpu, whole_cpu = (statistics.median(values) for values in zip(*cpu_ms, strict=True))
    what = f"bare time / ours, median of {len(ratios)} ({min(ratios):.3f} to {max(ratios):.3f})"
    ours_s = statistics.median(spans)
    figures = [
        Figure(name, what, f"{ratio:.3f}", ">= 0.95", ratio >= 0.95),
        Figure(name, "tokens/s", f"{tokens / ours_s:,.0f}"),
        Figure(name, "coordinator CPU a row, from the first request", f"{cpu:.2f} ms", "<= 0.50 ms", cpu <= 0.5),
        Figure(name, "coordinator CPU a row, start included", f"{whole_cpu:.2f} ms"),
    ]
    if ray_s is not None:
        gain = ray_s / ours_s
        figures.append(Figure(name, "Ray Data LLM's time / ours", f"{gain:.2f}", ">= 1.80", gain >= 1.8))
    return figures


def measure(arguments: argparse.Namespace) -> list[Figure]:
    python = os.environ.get("PENSTOCK_VLLM_PYTHON") or sys.exit("PENSTOCK_VLLM_PYTHON is not set: see `make vllm-env`")
    rows = mixed_rows(arguments.rows)
    spans: list[float] = []
    ratios: list[float] = []
    cpu_ms: list[tuple[float, float]] = []
    with work_folder() as folder:
        model, source = made_model(python, folder), write_jsonl(folder / "rows.jsonl", rows)
        with bare_engines(python, model, rows, folder) as engines:
            bare_pass_s(engines)  # warm
            for pair in range(arguments.pairs):
                say(f"pair {pair + 1} of {arguments.pairs}")
                run = run_pipeline(
                    folder, pipeline(python, model, source), f"run-{pair}", {"VLLM_CPU_KVCACHE_SPACE": KV_CACHE_GIB}
                )
                spans.append(busy_span_s(run))
                ratios.append(bare_pass_s(engines) / spans[-1])
                cpu_ms.append((run.working_cpu_s / len(rows) * 1e3, run.cpu_s / len(rows) * 1e3))
                shutil.rmtree(run.out)
        ray_s = ray_span_s(python, model, source, folder / "ray.log") if arguments.ray else None
    return figures_of(spans, ratios, cpu_ms, sum(row["n"] for row in rows), ray_s)


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], rows=1000, pairs=5, ray=1)
