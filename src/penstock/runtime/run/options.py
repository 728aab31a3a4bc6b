"""The options of a run, and its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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
    """Options that are not part of a run's identity.

    out              the output folder; overrides the path of the sink
    limit            read at most this many source rows
    executor         local | ray
    ray_address      a Ray cluster, HOST:PORT or auto; None: RAY_ADDRESS, else a new Ray instance on this machine
    placement_group  of Ray: use only its devices; it belongs to the caller
    takeover         take over the output folder from a process that still appears to own it
    display          auto | rich | plain | jsonl | none: progress on stderr
    listener         called about every `interval_s` seconds with the current facts, in the run's own thread; replaces
                     `display`
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
    """Options of the command line: times count from the start of the process.

    given  the original pipeline file, stored in the run directory for `penstock retry`
    """

    given: Given | None = None


@dataclass(frozen=True)
class RunResult:
    """The result of a run. summary: the content of summary.json; exit_code: an ExitCode."""

    exit_code: int
    summary: dict[str, Any]
    out_dir: Path
    facts: RunFacts = field(repr=False)
