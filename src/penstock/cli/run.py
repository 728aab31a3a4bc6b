"""`penstock run`: run a pipeline, or resume it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from penstock.cli import output
from penstock.cli.options import DEFAULTS, PipelineFile, RunFlags, option
from penstock.cli.pipeline_file import load, read_text

if TYPE_CHECKING:
    from penstock.report.facts import RunFacts
    from penstock.runtime.run.options import RunOptions, RunResult


def run(
    pipeline: PipelineFile,
    /,
    *,
    out: Annotated[str | None, Parameter(help="The output folder; overrides `sink.path`.")] = None,
    limit: Annotated[int | None, Parameter(help="Read at most this many source rows.", validator=Number(gte=1))] = None,
    flags: RunFlags = DEFAULTS,
) -> int:
    """Run a pipeline. Run the same command again to resume it.

    Ctrl-C once stops cleanly (exit code 75), twice stops immediately (130); both can be resumed.
    The output folder gets `data/`, `dead/` (rows that failed, with the reason) and `summary.json`.
    """
    from penstock.runtime.run.api import run as run_pipeline
    from penstock.runtime.run.pipeline_snapshot import Given

    given = Given(pipeline, read_text(pipeline), tuple(flags.set_), os.getcwd())
    again = ["penstock", "run", pipeline, *option("--out", out), *option("--limit", limit), *flags.words()]
    result = show_run(
        partial(run_pipeline, load(pipeline, flags.set_)),
        flags,
        again=shlex.join(again) + flags.key_hint,
        out=out,
        limit=limit,
        given=given,
    )
    return result.exit_code


def show_run(
    work: Callable[[RunOptions], RunResult], flags: RunFlags, *, again: str = "", closing: bool = True, **options: Any
) -> RunResult:
    """Do `work` under a display on stderr. A run that did not end well is an error at any display; `--json` puts its
    summary on stdout.

    again    the command that continues the run, shown when there is something to continue
    closing  whether the display ends with the figures of the run
    options  of RunOptions, beside those that the flags give
    """
    from penstock.report.display import choose
    from penstock.report.final import headline, resume_hint

    shown = choose(flags.display, sys.stderr)
    try:
        result = work(run_options(flags, shown.update, **options))
    except BaseException:
        shown.close(None)
        raise
    shown.close(result.facts if closing else None, again=again or None)
    if result.exit_code and (flags.is_quiet or not closing):
        output.error(headline(result.facts) + (f"; to continue: {again}{resume_hint(result.facts)}" if again else ""))
    if flags.json_:
        output.json_beside(result.summary, f"see {result.out_dir / 'summary.json'}")
    return result


def run_options(flags: RunFlags, listener: Callable[[RunFacts], None], **options: Any) -> RunOptions:
    from penstock.runtime.run.options import CommandOptions

    return CommandOptions(
        executor=flags.executor,
        ray_address=flags.ray_address,
        takeover=flags.takeover,
        listener=listener,
        **options,
    )
