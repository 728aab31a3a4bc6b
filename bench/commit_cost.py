"""What durability costs: the free mock with a commit every second, beside one that commits only at its end."""

from __future__ import annotations

import argparse
from statistics import median

from common import Figure, main, run_pipeline, say, work_folder, write_jsonl
from free_mock import pipeline

ROUNDS = 3


def measure(arguments: argparse.Namespace) -> list[Figure]:
    ratios = []
    with work_folder() as folder:
        source = write_jsonl(folder / "rows.jsonl", ({"id": n, "text": f"row {n}"} for n in range(arguments.rows)))
        for number in range(ROUNDS):
            rates = []
            for every_s in (3600.0, 1.0) if number % 2 else (1.0, 3600.0):
                run = run_pipeline(folder, {**pipeline(source), "commit_every_s": every_s}, f"run-{number}-{every_s:g}")
                rates.append((every_s, arguments.rows / (run.wall_s - run.summary["first_request_s"])))
            by_interval = dict(rates)
            ratios.append(by_interval[1.0] / by_interval[3600.0])
            say(f"every second {by_interval[1.0]:,.0f} rows/s, hardly ever {by_interval[3600.0]:,.0f} rows/s")
    found = median(ratios)
    what = "rows/s with a commit every second / with one an hour, free mock"
    return [
        Figure("commit cost", what, f"{found:.3f} ({min(ratios):.3f} to {max(ratios):.3f})", ">= 0.9", found >= 0.9)
    ]


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], rows=600_000)
