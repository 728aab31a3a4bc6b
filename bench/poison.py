"""Poisonous rows: 1 and 5 among 10,000, each kills the engine that begins it. Four replicas, 256 requests in flight.

Reach: all others finish, at most 10 restarts for each poisonous row, and the replicas that are not
the quarantine lane answer at 0.95 of the rate that they have without poison.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import Figure, Finished, main, run_pipeline, say, work_folder, write_jsonl

REPLICAS, SLOTS, MS_PER_ROW = 4, 64, 250.0


def pipeline(source: Path) -> dict[str, Any]:
    options = {"slots": SLOTS, "ms_per_row": MS_PER_ROW, "crash_on": "poison", "load_ms": 200}
    return {
        "models": {"writer": {"ref": "mock:p", "replicas": REPLICAS, "engine_options": options}},
        "source": {"path": str(source)},
        "steps": [{"generate": {"model": "writer", "prompt": "{{ text }}", "output": "answer"}}],
        "sink": {"path": "unused"},
        "max_dead": 10,
    }


def others_rates(run: Finished) -> tuple[float, float]:
    """Of all but the lane (the replica with most restarts), together and the lowest of them: rows answered in a second
    of being busy.

    The seconds in which only the lane is left, and others have nothing to do, are not theirs. What a replica had begun
    when it died of a poisonous row itself, before that row was a suspect, is.
    """
    others = sorted(run.pool["replicas"], key=lambda replica: replica["restarts"])[: REPLICAS - 1]
    together = sum(replica["rows"] for replica in others) / sum(replica["busy_s"] for replica in others)
    return together, min(replica["rows"] / replica["busy_s"] for replica in others)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    figures, name = [], "poison"
    with work_folder() as folder:
        calm = calm_least = 0.0
        for count in (0, 1, 5):
            bad = {(k + 1) * arguments.rows // (count + 1) for k in range(count)}
            rows = ({"id": n, "text": f"{'poison' if n in bad else 'row'} {n}"} for n in range(arguments.rows))
            source = write_jsonl(folder / f"rows-{count}.jsonl", rows)
            run = run_pipeline(folder, pipeline(source), f"run-{count}")
            counts, restarts = run.summary["rows"], sum(each["restarts"] for each in run.pool["replicas"])
            say(f"{count} poisonous: {counts}, {restarts} restarts, {others_rates(run)[0]:.0f} rows/s each")
            if not count:
                calm, calm_least = others_rates(run)
                continue
            together, least = others_rates(run)
            lost = arguments.rows - counts["out"] - count
            each, share = restarts / count, together / calm
            figures += [
                Figure(name, f"{count}: innocent rows without an answer", str(lost), "0", lost == 0),
                Figure(name, f"{count}: restarts for each", f"{each:.1f}", "<= 10", each <= 10),
                Figure(
                    name, f"{count}: the others' rate / theirs without poison", f"{share:.3f}", ">= 0.95", share >= 0.95
                ),
                Figure(name, f"{count}: the least of them, its own deaths included", f"{least / calm_least:.3f}"),
            ]
    return figures


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], rows=10_000)
