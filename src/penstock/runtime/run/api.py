"""`run`: run a pipeline. Called by the command line and the Python API."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from penstock.core.counts import Counts
from penstock.core.flow.limit import all_admitted
from penstock.errors import (
    ExitCode,
    Fenced,
    Interrupted,
    InvariantError,
    PenstockError,
    RunFailed,
    RunIncomplete,
    RunMismatch,
    TooManyDead,
    UsageError,
)
from penstock.faults import fault
from penstock.ledger.view import RunView, read_run
from penstock.planning.preflight import check_feasible
from penstock.planning.run_plan import RunPlan
from penstock.planning.targets import LocalTarget, Target, open_target
from penstock.report.facts import PoolFacts, RunFacts, figures
from penstock.report.final import headline
from penstock.report.summary import summary
from penstock.runtime.run.invocation import Invocation
from penstock.runtime.run.options import EXIT_CODES, CommandOptions, Listener, RunOptions, RunResult
from penstock.runtime.run.output_inside_input import refuse_overlap
from penstock.runtime.run.scope import RunScope
from penstock.runtime.run.session import session
from penstock.runtime.watch.clock import RunClock
from penstock.runtime.watch.live import live_listener
from penstock.runtime.watch.signals import StopNow
from penstock.spec.identity import pipeline_identity, pools
from penstock.spec.pipeline import Pipeline, expect_pipeline
from penstock.units import noun

__all__ = [
    "RunOptions",
    "RunResult",
    "displayed",
    "drive",
    "nothing_to_do",
    "returned_or_raised",
    "run",
    "store_summary",
    "target_of",
]


def run(pipeline: Pipeline, options: RunOptions | None = None) -> RunResult:
    """Run `pipeline`, or resume its run. Blocks until the run has ended.

    Raises PenstockError if the run could not start (`exit_code` has the kind), and RunIncomplete, with the result, if
    the run started and is not done, unless the options have check=False.
    """
    options = RunOptions.checked(options)
    return returned_or_raised(options, displayed(options, partial(_run, expect_pipeline(pipeline, "run"), options)))


def returned_or_raised(options: RunOptions, result: RunResult) -> RunResult:
    """`result`, if its run is done or the options have check=False. Raises RunIncomplete."""
    if not options.check or result.exit_code == ExitCode.DONE:
        return result
    facts = result.facts
    kind: type[RunIncomplete] = {"too_many_dead": TooManyDead, "stopped": Interrupted}.get(facts.status, RunFailed)
    message = f"{headline(facts)}; {noun(facts.committed, 'row')} finished and kept: run it again to continue"
    if facts.status == "too_many_dead":
        message += f" with a higher max_dead; `penstock status {shlex.quote(facts.out_dir)}` lists the dead rows"
    raise kind(message, result)


def displayed(options: RunOptions, work: Callable[[Listener], RunResult]) -> RunResult:
    """Do `work` with the listener or the display of the options."""
    if options.listener is not None:
        return work(options.listener)
    from penstock.report.display import choose

    shown = choose(options.display, sys.stderr)
    try:
        result = work(shown.update)
    except BaseException:
        shown.close(None)
        raise
    shown.close(result.facts)
    return result


def _run(pipeline: Pipeline, options: RunOptions, listener: Listener) -> RunResult:
    if options.out is not None and not options.out.strip():
        raise UsageError("the output folder (--out) has no name; give a path")
    out_dir = Path(options.out if options.out is not None else pipeline.sink.path)
    refuse_overlap(pipeline.source.paths, out_dir, pipeline.sink.format)
    holder = f"the run in {out_dir.absolute()} (process {os.getpid()})"
    with ExitStack() as stack, session(whole_process=isinstance(options, CommandOptions)) as lent:
        stands = _standing(out_dir)
        complete = stands is not None and _is_complete(stands, options.limit)
        if not complete:
            check_feasible(pipeline)
        target = LocalTarget(holder) if complete else target_of(pipeline, options, holder)
        stack.callback(target.close)
        planned = RunPlan((), (), {}) if complete else target.plan(pipeline, _recorded_cut(stands, pipeline))
        fault("run.planned")
        while True:
            scope = RunScope(out_dir, out_dir, options.limit, pipeline.max_dead)
            with Invocation(pipeline, scope, options, target, planned, lent) as invocation:
                if complete:
                    invocation.refuse_longer()
                    facts, code = nothing_to_do(pipeline, out_dir, lent.clock), 0
                else:
                    facts, code = drive(invocation, out_dir, listener)
            if facts.status == "done" and not complete and not _is_complete(read_run(out_dir), options.limit):
                continue  # it was taken up in a later phase, of rows that a life before took in under its limit
            wider = invocation.wider_model() if facts.status == "failed" else None
            if wider is None:
                break
            pipeline = wider  # from the ledger on, with more tensor parallelism
            planned = target.plan(pipeline, planned.cut)
        if facts.at_once or facts.status == "failed":
            facts = _durable(facts, out_dir)
        listener(facts)
        fault("run.ended")
        written = summary(facts)
        code = store_summary(out_dir, written, facts, code, needed=not complete)
        fault("run.summary_written")
    return RunResult(code, written, out_dir, facts)


def target_of(pipeline: Pipeline, options: RunOptions, holder: str) -> Target:
    return open_target(
        options.executor,
        holder,
        ray_address=options.ray_address,
        placement_group=options.placement_group,
    )


def drive(invocation: Invocation, out_dir: Path, listener: Listener) -> tuple[RunFacts, int]:
    """Run until it ends. Returns the final facts and the exit code."""
    try:
        facts = invocation.run(live_listener(out_dir, listener, invocation.log_writer))
        return facts, invocation.failure_code if facts.status == "failed" else EXIT_CODES[facts.status]
    except StopNow:
        left, code = invocation.facts("stopped", at_once=True), ExitCode.STOPPED_AT_ONCE
        if left is None:
            raise
    except Exception as error:
        left = invocation.facts("failed", reason=invocation.reason_of(error))
        if left is None or isinstance(error, Fenced):
            raise  # nothing began here, or the folder is another's by now
        if isinstance(error, InvariantError) or not isinstance(error, PenstockError):
            write_summary(out_dir, summary(_durable(left, out_dir)))
            raise  # a bug, or a machine that failed: its story is wanted
        code = error.exit_code
    return left, code


def _durable(facts: RunFacts, out_dir: Path) -> RunFacts:
    """The facts of a run that was left in a hurry, with the rows that are safe instead of those that were on their
    way. Where its records can't be read any more, that is being reported already."""
    try:
        counts = read_run(out_dir).counts
    except (OSError, PenstockError):
        return facts
    every_step = Counts(steps={step.name: (0, 0, 0) for step in facts.steps})
    safe = figures(every_step + counts) | {"rows_in": facts.rows_in}
    return msgspec.structs.replace(facts, committed=counts.ended_sources, **safe)


def store_summary(out_dir: Path, content: dict[str, Any], facts: RunFacts, code: int, *, needed: bool) -> int:
    """Write summary.json; a failure is a warning. Returns the exit code."""
    try:
        write_summary(out_dir, content)
    except OSError as error:
        target = out_dir / "summary.json"
        facts.warnings.append(f"can't write {target}: {error.strerror or error}; the output rows are safe")
        return code or int(needed)
    return code


def _standing(out_dir: Path) -> RunView | None:
    """The run in the folder, or None."""
    try:
        return read_run(out_dir)
    except RunMismatch:
        return None


def _recorded_cut(stands: RunView | None, pipeline: Pipeline) -> tuple[int, ...]:
    """The division into phases recorded by the first start of this run."""
    if stands is None:
        return ()
    asked = msgspec.json.decode(msgspec.json.encode(pipeline_identity(pipeline)))
    return (stands.run.cut or (len(pipeline.steps),)) if asked == stands.run.identity else ()


def _is_complete(view: RunView, limit: int | None) -> bool:
    """Whether the run needs no replica any more; then its engine need not be installed."""
    return view.finished and all_admitted(view.watermark, view.total_rows, limit)


def write_summary(out_dir: Path, content: dict[str, Any]) -> None:
    """Replace summary.json atomically."""
    target = out_dir / "summary.json"
    temporary = out_dir / f".summary.json.{os.getpid()}"
    try:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        os.replace(temporary, target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def nothing_to_do(pipeline: Pipeline, out_dir: Path, clock: RunClock) -> RunFacts:
    """Facts of a run that was complete before this invocation."""
    view = read_run(out_dir)
    counts = view.counts
    return RunFacts(
        status="done",
        out_dir=str(out_dir),
        wall_s=clock.now(),
        total_rows=view.total_rows,
        committed=counts.ended_sources,
        reused=counts.ended_sources,
        in_memory=0,
        rows_per_s=0.0,
        tokens_per_s=0.0,
        eta_s=None,
        pools=[PoolFacts(name=pool.name, names=list(pool.names)) for pool in pools(pipeline)],
        **figures(counts),
    )
