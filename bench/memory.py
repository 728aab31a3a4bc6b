"""Peak resident memory of the coordinator, 100 thousand rows against 3 million, through a mock that takes no time."""

from __future__ import annotations

import argparse

from common import Figure, main, run_pipeline, say, work_folder, write_jsonl
from free_mock import pipeline

LIMIT_BYTES = 500_000_000


def measure(arguments: argparse.Namespace) -> list[Figure]:
    peaks = []
    for count in (arguments.few, arguments.many):
        with work_folder() as folder:
            source = write_jsonl(folder / "rows.jsonl", ({"id": n, "text": f"row {n}"} for n in range(count)))
            run = run_pipeline(folder, pipeline(source))
        peaks.append(run.peak_bytes)
        say(f"{count:,} rows: {run.peak_bytes / 1e6:.0f} MB, {run.wall_s:.1f} s")
    ratio = peaks[1] / peaks[0]
    what = f"{arguments.many:,} rows / {arguments.few:,} rows"
    return [
        Figure("memory", f"coordinator peak, {what}", f"{ratio:.3f}", "<= 1.10", ratio <= 1.10),
        Figure("memory", "coordinator peak", f"{max(peaks) / 1e6:.0f} MB", "< 500 MB", max(peaks) < LIMIT_BYTES),
    ]


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], few=100_000, many=3_000_000)
