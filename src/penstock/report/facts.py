"""The state of a run at one moment. Views (console, plain lines, JSON, summary) are pure functions of it."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.core.counts import Counts


class ReplicaFacts(msgspec.Struct):
    """One replica. state: starting | ready | asleep | stopping | restarting | failed | closed.

    reason     why it waits or is not ready, in words; "" when it works
    busy_recent  share of the last interval with at least one request executing
    busy_s, fill_s, rows  of this invocation; times in seconds
    device_bytes  memory in use on its devices, or by its processes on the CPU
    """

    id: str
    pool: str
    devices: list[str]
    state: str
    reason: str = ""
    executing: int = 0
    waiting: int = 0
    in_flight: int = 0
    slots: int = 0
    rows: int = 0
    busy_s: float = 0.0
    fill_s: float = 0.0
    busy_recent: float = 0.0
    ready_s: float | None = None
    restarts: int = 0
    loads: int = 0
    device_bytes: int = 0
    device_use: float | None = None
    kv_tokens: int = 0  # that its engine found room for; 0: no such limit
    kv_tokens_planned: int = 0


class PoolFacts(msgspec.Struct):
    """The replicas of one model. `name` keys summary.json; times in seconds since the process started.

    kind: model | python (local workers of Python steps, which are no models of summary.json).
    """

    name: str
    names: list[str]
    tokens_in: int = 0
    tokens_out: int = 0
    waiting: int = 0
    first_request_s: float | None = None
    last_response_s: float | None = None
    loads: int = 0
    replicas: list[ReplicaFacts] = []
    kind: str = "model"


class StepFacts(msgspec.Struct):
    name: str
    rows_in: int = 0
    rows_out: int = 0
    dead: int = 0


class DeadExample(msgspec.Struct):
    """Dead rows grouped by cause: how many, and the first one's place and message."""

    step: str
    code: str
    count: int
    where: str
    message: str


class RunFacts(msgspec.Struct):
    """status: starting | running | stopping | done | stopped | failed | too_many_dead."""

    status: str
    out_dir: str
    wall_s: float
    total_rows: int | None  # rows of the source, where known
    rows_in: int  # source rows read so far, reused ones included
    committed: int  # source rows that have ended and are durable, reused ones included
    ended: int  # source rows that have ended in memory or on disk
    out: int
    dead: int
    filtered: int
    reused: int
    in_memory: int
    rows_per_s: float
    tokens_per_s: float
    eta_s: float | None
    reason: str = ""  # why the run as a whole waits or ended
    pools: list[PoolFacts] = []
    steps: list[StepFacts] = []
    dead_examples: list[DeadExample] = []
    warnings: list[str] = []
    first_request_s: float | None = None
    last_response_s: float | None = None
    phase: int = 1  # the one that runs, of `phases`; the figures of rows are of the whole run
    phases: int = 1
    phase_ended: int = 0  # rows of the phase that have ended, of `phase_total`
    phase_total: int | None = None
    at_once: bool = False  # stopped without waiting for what was in flight

    def __post_init__(self) -> None:
        self.out_dir = self.out_dir.encode("utf-8", "backslashreplace").decode("utf-8")  # files and displays are UTF-8


def figures(counts: Counts) -> dict[str, Any]:
    """The fields of RunFacts that tell the totals of a run."""
    return {
        "rows_in": counts.rows_in,
        "ended": counts.ended_sources,
        "out": counts.out,
        "dead": counts.dead,
        "filtered": counts.filtered,
        "steps": [StepFacts(name, *figures) for name, figures in counts.steps.items()],
    }
