"""How a run is asked for, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.errors import ExitCode
from penstock.report.display import DisplayKind
from penstock.report.facts import RunFacts
from penstock.runtime.run.pipeline_snapshot import Given

__all__ = ["EXIT_CODES", "CommandOptions", "Listener", "RunOptions", "RunResult"]

Listener = Callable[[RunFacts], None]

EXIT_CODES = {
    "done": ExitCode.DONE,
    "failed": ExitCode.FAILED,
    "too_many_dead": ExitCode.TOO_MANY_DEAD,
    "stopped": ExitCode.STOPPED,
}


@dataclass(frozen=True)
class RunOptions:
    """How to run, as opposed to what; none of it is part of a run's identity.

    out         the output folder, in place of the sink's path
    limit       take at most this many rows of the source
    executor    local | ray
    ray_address      of a Ray cluster, HOST:PORT or auto; None: RAY_ADDRESS, else a fresh Ray on this machine
    placement_group  of Ray: take devices from this one only; it belongs to the caller
    takeover    take the folder over from a process that still seems to own it
    display     for the Python API: auto | rich | plain | jsonl | none, on stderr
    listener    called about every `interval_s` seconds with fresh facts, from the run's own thread; replaces `display`
    """

    out: str | None = None
    limit: int | None = None
    executor: str = "local"
    ray_address: str | None = None
    placement_group: Any = None
    takeover: bool = False
    display: DisplayKind = "auto"
    listener: Listener | None = None
    interval_s: float = 0.5


@dataclass(frozen=True)
class CommandOptions(RunOptions):
    """Of a run that is all that its process does: times count from the start of the process.

    given  how the pipeline was given, noted in the run directory for `penstock retry`
    """

    given: Given | None = None


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `summary` is the content of summary.json; exit_code: an ExitCode."""

    exit_code: int
    summary: dict[str, Any]
    out_dir: Path
    facts: RunFacts
