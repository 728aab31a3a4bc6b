"""One of four replicas is killed in mid-run: when that is noticed, what the others keep up, when it is back."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from typing import Any

from common import Figure, host_of, main, say, work_folder, write_jsonl
from penstock.report.facts import RunFacts
from penstock.runtime.run.api import RunOptions, run
from penstock.spec.load import load_pipeline

REPLICAS, SLOTS, MS_PER_ROW, LOAD_MS = 4, 8, 50.0, 6000.0
SETTLED_S = 4.0  # of all four at work, before one is killed: their rate is taken here
PIPELINE = f"""
models:
  writer: {{ref: mock:killed, replicas: {REPLICAS},
           engine_options: {{slots: {SLOTS}, ms_per_row: {MS_PER_ROW}, load_ms: {LOAD_MS}}}}}
source: {{path: rows.jsonl}}
steps: [{{generate: {{model: writer, prompt: "{{{{ text }}}}", output: answer, max_tokens: 4}}}}]
sink: {{path: out}}
commit_every_s: 1
"""


class Story:
    """Samples of a run: (time, rows answered by all, state of the victim)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.samples: list[tuple[float, int, str]] = []
        self.all_ready_at = self.killed_at = -1.0

    def __call__(self, facts: RunFacts) -> None:
        replicas = facts.pools[0].replicas if facts.pools else []
        if len(replicas) < REPLICAS:
            return
        self.samples.append((facts.wall_s, sum(each.rows for each in replicas), replicas[0].state))
        if self.all_ready_at < 0 and all(each.state == "ready" for each in replicas):
            self.all_ready_at = facts.wall_s
        if self.killed_at < 0 <= self.all_ready_at <= facts.wall_s - SETTLED_S:
            self.killed_at = facts.wall_s
            os.kill(host_of(self._folder / "out" / "logs" / "writer-0.log"), signal.SIGKILL)

    def rate(self, begin: float, end: float) -> float:
        inside = [(at, rows) for at, rows, _ in self.samples if begin <= at <= end]
        return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])

    def first(self, state: str, after: float) -> float:
        return next(at for at, _, seen in self.samples if at > after and seen == state)

    def first_not(self, state: str, after: float) -> float:
        return next(at for at, _, seen in self.samples if at > after and seen != state)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    with work_folder() as folder:
        rows: list[dict[str, Any]] = [{"text": f"row {n}"} for n in range(arguments.rows)]
        write_jsonl(folder / "rows.jsonl", rows)
        os.chdir(folder)
        story = Story(folder)
        result = run(load_pipeline(PIPELINE, "pipeline.yaml"), RunOptions(listener=story, interval_s=0.05))
        os.chdir("/")
    if result.summary["rows"]["out"] != arguments.rows:
        raise SystemExit(f"rows are missing: {result.summary['rows']}")
    noticed_s = story.first_not("ready", story.killed_at) - story.killed_at
    back_s = story.first("ready", story.killed_at + noticed_s) - story.killed_at
    before = story.rate(story.killed_at - SETTLED_S + 0.5, story.killed_at)
    without = story.rate(story.killed_at + noticed_s, story.killed_at + back_s - 0.2)
    share = without / before / ((REPLICAS - 1) / REPLICAS)
    say(f"{before:.0f} rows/s with {REPLICAS}, {without:.0f} rows/s while one is away")
    name = "replica killed"
    return [
        Figure(name, "noticed after", f"{noticed_s:.2f} s", "<= 2 s", noticed_s <= 2),
        Figure(name, "rate of the others / 3/4 of the rate before", f"{share:.3f}", ">= 0.95", share >= 0.95),
        Figure(
            name,
            f"back after (loading takes {LOAD_MS / 1000:.0f} s)",
            f"{back_s:.1f} s",
            f"<= {LOAD_MS / 1000 + 10:.0f} s",
            back_s <= LOAD_MS / 1000 + 10,
        ),
    ]


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], rows=16_000)
