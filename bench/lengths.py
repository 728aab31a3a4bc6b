"""Four replicas of 8 slots, 1 ms a token, log-normal lengths: known to the scheduler, and unknown.

Known: each row names its max_tokens. Unknown: max_tokens is the same for all, and the mock ends each output at a length
of its own. The bound counts the tokens that came out: the later of the earliest end of all work on all slots
(`common.earliest_end_s`) and the longest row begun when the first replica was ready. Spans count from that moment too.
"""

from __future__ import annotations

import argparse
import random
import statistics
from pathlib import Path
from typing import Any

from common import Figure, Finished, earliest_end_s, main, run_pipeline, say, work_folder, write_jsonl
from workload import log_normal_length

REPLICAS, SLOTS, MS_PER_TOKEN = 4, 8, 1.0
MEDIAN_TOKENS, SIGMA, SHORTEST, LONGEST = 35, 1.0, 4, 384
KNOWN, UNKNOWN = "lengths known", "lengths unknown"
REACH = {KNOWN: 1.03, UNKNOWN: 1.10}


def pipeline(kind: str, source: Path, seed: int) -> dict[str, Any]:
    options: dict[str, Any] = {"slots": SLOTS, "ms_per_token": MS_PER_TOKEN, "seed": seed}
    step: dict[str, Any] = {"model": "writer", "prompt": "{{ text }}", "output": "answer", "meta": True}
    if kind == KNOWN:
        step["max_tokens"] = "{{ n }}"
    else:
        step["max_tokens"] = LONGEST
        options |= {"eos_median_tokens": MEDIAN_TOKENS, "eos_sigma": SIGMA}
    return {
        "models": {"writer": {"ref": "mock:slots", "replicas": REPLICAS, "engine_options": options}},
        "source": {"path": str(source)},
        "steps": [{"generate": step}],
        "sink": {"path": "unused"},
    }


def tokens_out(run: Finished) -> list[int]:
    import pyarrow.parquet as parquet

    tables = [
        parquet.read_table(part, columns=["answer_meta"]) for part in sorted((run.out / "data").glob("*.parquet"))
    ]
    return [meta["tokens_out"] for table in tables for meta in table["answer_meta"].to_pylist()]


def span_ratio(run: Finished) -> float:
    lengths_s = [tokens * MS_PER_TOKEN / 1e3 for tokens in tokens_out(run)]
    start = min(run.ready_s)
    bound_s = max(earliest_end_s(run.ready_s, SLOTS, sum(lengths_s)) - start, max(lengths_s))
    return (run.pool_end_s - start) / bound_s


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    lengths = [log_normal_length(rng, MEDIAN_TOKENS, SIGMA, SHORTEST, LONGEST) for _ in range(count)]
    return [{"id": n, "text": f"row {seed} {n}", "n": length} for n, length in enumerate(lengths)]


def measure(arguments: argparse.Namespace) -> list[Figure]:
    figures = []
    with work_folder() as folder:
        for kind, reach in REACH.items():
            ratios = []
            for seed in range(arguments.seeds):
                source = write_jsonl(folder / "rows.jsonl", rows(arguments.rows, seed))
                run = run_pipeline(folder, pipeline(kind, source, seed), f"{kind.split()[1]}-{seed}")
                ratios.append(span_ratio(run))
                say(f"{kind}, seed {seed}: span {ratios[-1]:.3f} x bound, busy {min(run.busy_fractions):.3f}")
            middle = statistics.median(ratios)
            what = f"span / bound, median of {len(ratios)} ({min(ratios):.3f} to {max(ratios):.3f})"
            figures.append(Figure(kind, what, f"{middle:.3f}", f"<= {reach:.2f}", middle <= reach))
    return figures


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], rows=2000, seeds=5)
