"""`run`: a pipeline from its description to its end. What the command line and the Python API call."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from penstock.errors import ConfigError, RunMismatch, UsageError
from penstock.ledger.view import read_run
from penstock.report.facts import PoolFacts, RunFacts, StepFacts
from penstock.report.summary import summary
from penstock.runtime.clock import RunClock, process_age_s
from penstock.runtime.inbox import Inbox
from penstock.runtime.invocation import Invocation
from penstock.runtime.plan import RunPlan, plan
from penstock.runtime.signals import Interrupts, StopNow
from penstock.spec.identity import pools
from penstock.spec.pipeline import Pipeline

Listener = Callable[[RunFacts], None]

EXIT_CODES = {"done": 0, "failed": 1, "too_many_dead": 3, "stopped": 75}
STOPPED_AT_ONCE = 130


@dataclass(frozen=True)
class RunOptions:
    """How to run, as opposed to what; none of it is part of a run's identity.

    out         the output folder, in place of the sink's path
    limit       take at most this many rows of the source
    executor    local | ray
    takeover    take the folder over from a process that still seems to own it
    display     for the Python API: auto | rich | plain | json | none, on stderr
    listener    called about every `interval_s` seconds with fresh facts, from the run's own thread; replaces `display`
    whole_process  count times from the start of the process (the command line) rather than from this call
    """

    out: str | None = None
    limit: int | None = None
    executor: str = "local"
    takeover: bool = False
    display: Literal["auto", "rich", "plain", "json", "none"] = "auto"
    listener: Listener | None = None
    interval_s: float = 0.5
    whole_process: bool = False


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `summary` is the content of summary.json; exit codes as in the public contract."""

    exit_code: int
    summary: dict[str, Any]
    out_dir: Path
    facts: RunFacts


def run(pipeline: Pipeline, options: RunOptions | None = None) -> RunResult:
    """Run `pipeline`, or take it up where it stands. Blocks until it has ended.

    Raises PenstockError where nothing could be begun (its `exit_code` says which kind); a run that began always gives
    a result, also when it failed.
    """
    options = options or RunOptions()
    if options.listener is not None:
        return _run(pipeline, options, options.listener)
    from penstock.report.display import choose

    shown = choose(options.display, sys.stderr)
    try:
        result = _run(pipeline, options, shown.update)
    except BaseException:
        shown.close(None)
        raise
    shown.close(result.facts)
    return result


def _run(pipeline: Pipeline, options: RunOptions, listener: Listener) -> RunResult:
    if options.executor != "local":
        raise UsageError(f"the executor '{options.executor}' is not available in this version; use 'local'")
    out_dir = Path(options.out if options.out is not None else pipeline.sink.path)
    _refuse_overlap(pipeline, out_dir)
    clock = RunClock(process_age_s() if options.whole_process else 0.0)
    inbox = Inbox()
    try:
        with Interrupts(inbox) as interrupts:
            complete = _is_complete(out_dir, options.limit)
            planned = RunPlan((), (), {}) if complete else plan(pipeline)
            with Invocation(pipeline, options, out_dir, planned, clock, inbox, interrupts) as invocation:
                try:
                    facts = nothing_to_do(pipeline, out_dir, clock) if complete else invocation.run(listener)
                    code = EXIT_CODES[facts.status]
                except StopNow:
                    facts, code = invocation.facts("stopped"), STOPPED_AT_ONCE
            listener(facts)
    finally:
        inbox.close()
    written = summary(facts)
    write_summary(out_dir, written)
    return RunResult(code, written, out_dir, facts)


def _is_complete(out_dir: Path, limit: int | None) -> bool:
    """Whether the folder holds a run that needs no replica any more; then no engine has to be installed either."""
    try:
        view = read_run(out_dir)
    except RunMismatch:
        return False
    if not view.finished:
        return False
    return view.total_rows is not None or (limit is not None and view.watermark >= limit)


def _refuse_overlap(pipeline: Pipeline, out_dir: Path) -> None:
    """The output may be neither the input nor a folder that holds it or lies in it."""
    out = Path(os.path.realpath(out_dir))
    for given in pipeline.source.paths:
        found = Path(os.path.realpath(given))
        if (
            out == found
            or found in out.parents
            or (found.exists() and out in found.parents and (out / "data") in (found, *found.parents))
        ):
            raise ConfigError(
                f"the output folder {out_dir} overlaps the input {given}; choose another output folder (--out)"
            )


def write_summary(out_dir: Path, content: dict[str, Any]) -> None:
    """Write summary.json so that a reader sees the old one or the new one, whole."""
    target = out_dir / "summary.json"
    temporary = out_dir / f".summary.json.{os.getpid()}"
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
    os.replace(temporary, target)


def nothing_to_do(pipeline: Pipeline, out_dir: Path, clock: RunClock) -> RunFacts:
    """Facts of a run that was complete before this invocation began: nothing is loaded."""
    view = read_run(out_dir)
    counts = view.counts
    return RunFacts(
        status="done",
        out_dir=str(out_dir),
        wall_s=clock.now(),
        total_rows=view.total_rows,
        rows_in=counts.rows_in,
        committed=counts.ended_sources,
        ended=counts.ended_sources,
        out=counts.out,
        dead=counts.dead,
        filtered=counts.filtered,
        reused=counts.ended_sources,
        in_memory=0,
        rows_per_s=0.0,
        tokens_per_s=0.0,
        eta_s=None,
        pools=[PoolFacts(name=pool.name, names=list(pool.names)) for pool in pools(pipeline)],
        steps=[StepFacts(name, *figures) for name, figures in counts.steps.items()],
    )
