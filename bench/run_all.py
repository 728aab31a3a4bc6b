"""Run every benchmark that applies here, one after another, and print one table.

python bench/run_all.py [NAME ...]     all, or only those named, for instance: nine_batches start
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import Figure, say, show

HERE = Path(__file__).resolve().parent
BENCHMARKS = (
    "start",
    "nine_batches",
    "lengths",
    "free_mock",
    "core_rate",
    "cancel_cost",
    "array_answers",
    "service_connections",
    "commit_cost",
    "kill_at_half",
    "replica_killed",
    "survivor",
    "poison",
    "planning",
    "ray_placement",
    "ray_beside_local",
    "four_steps",
    "memory",
    "ten_million",
    "vllm_two_replicas",
    "vllm_kv_tokens",
)


def why_not(name: str) -> str | None:
    if not (HERE / f"{name}.py").exists():
        return "no such benchmark"
    if name.startswith("vllm") and not os.environ.get("PENSTOCK_VLLM_PYTHON"):
        return "PENSTOCK_VLLM_PYTHON is not set: `make vllm-env` makes an environment with vLLM"
    if name == "four_steps" and not os.environ.get("PENSTOCK_DISTILABEL_PYTHON"):
        return "PENSTOCK_DISTILABEL_PYTHON is not set: `make distilabel-env` makes an environment with distilabel"
    return None


def run_one(name: str) -> list[Figure]:
    """The figures of one benchmark; one that says so when it failed or does not apply."""
    reason = why_not(name)
    if reason:
        return [Figure(name, "skipped", reason)]
    say(f"== {name}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        done = subprocess.run([sys.executable, str(HERE / f"{name}.py"), "--json", str(file)], stdout=sys.stderr)
        if done.returncode != 0:
            return [Figure(name, "failed", f"exit code {done.returncode}", "", False)]
        return [Figure(**figure) for figure in json.loads(file.read_text())]


def main() -> None:
    figures = [figure for name in sys.argv[1:] or BENCHMARKS for figure in run_one(name)]
    print(show(figures))
    sys.exit(any(figure.what == "failed" for figure in figures))


if __name__ == "__main__":
    main()
