"""The options of a run, and its result."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from penstock.errors import ExitCode, UsageError
from penstock.report.display import DisplayKind
from penstock.report.facts import RunFacts
from penstock.runtime.run.pipeline_snapshot import Given
from penstock.spec.fields import is_number, is_whole
from penstock.spec.problems import shown, suggestion

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
    check            raise RunFailed, TooManyDead or Interrupted if the run is not done; False: return its result
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
    check: bool = True

    def __post_init__(self) -> None:
        if self.out is not None:
            if not isinstance(self.out, (str, os.PathLike)):
                raise UsageError(f"'out': expected a path, got {shown(self.out)}", where="RunOptions")
            object.__setattr__(self, "out", os.fspath(self.out))
        if self.limit is not None and not (is_whole(self.limit) and self.limit >= 1):
            expected = "a whole number of at least 1, or None for all rows"
            raise UsageError(f"'limit': expected {expected}, got {shown(self.limit)}", where="RunOptions")
        if self.display not in (kinds := get_args(DisplayKind)):
            known = suggestion(str(self.display), kinds)
            raise UsageError(f"'display': unknown value {shown(self.display)}{known}", where="RunOptions")
        if not (is_number(self.interval_s) and self.interval_s >= 0):
            expected = "seconds of at least 0"
            raise UsageError(f"'interval_s': expected {expected}, got {shown(self.interval_s)}", where="RunOptions")

    @classmethod
    def checked(cls, value: Any) -> RunOptions:
        """`value` itself, the defaults for None. Raises UsageError for anything else."""
        if value is None:
            return cls()
        if isinstance(value, RunOptions):
            return value
        raise UsageError(f"expected RunOptions(...), got {shown(value)}")


@dataclass(frozen=True)
class CommandOptions(RunOptions):
    """Options of the command line: times count from the start of the process.

    given  the original pipeline file, stored in the run directory for `penstock retry`
    """

    check: bool = False
    given: Given | None = None


@dataclass(frozen=True)
class RunResult:
    """The result of a run. summary: the content of summary.json; exit_code: an ExitCode."""

    exit_code: int
    summary: dict[str, Any]
    out_dir: Path
    facts: RunFacts = field(repr=False)
