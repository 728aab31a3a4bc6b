"""`penstock run`: run a pipeline, or resume it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from penstock.cli import output
from penstock.cli.options import AsJson, DisplayKind, ExecutorName, PipelineFile, Sets
from penstock.cli.pipeline_file import load, read_text
from penstock.redaction import MASK, shown_setting
from penstock.runtime.run.pipeline_snapshot import Given

if TYPE_CHECKING:
    from penstock.runtime.run.api import RunResult
    from penstock.spec.pipeline import Pipeline


def run(
    pipeline: PipelineFile,
    /,
    *,
    out: Annotated[str | None, Parameter(help="The output folder; overrides `sink.path`.")] = None,
    limit: Annotated[int | None, Parameter(help="Read at most this many source rows.", validator=Number(gte=1))] = None,
    set_: Sets = (),
    executor: ExecutorName = "local",
    ray_address: Annotated[
        str | None, Parameter(help="Ray cluster, HOST:PORT or auto. Default: RAY_ADDRESS, else a new local Ray.")
    ] = None,
    display: DisplayKind = "auto",
    takeover: Annotated[
        bool, Parameter(help="Take over the output folder from a process that still appears to own it.")
    ] = False,
    json_: AsJson = False,
) -> int:
    """Run a pipeline. Run the same command again to resume it.

    Ctrl-C once stops in good order (exit code 75), twice stops at once (130); both can be resumed.
    The output folder gets `data/`, `dead/` (rows that failed, with the reason) and `summary.json`.
    """
    again = ["penstock", "run", pipeline, *_option("--out", out), *_option("--limit", limit)]
    again += [word for value in set_ for word in _option("--set", shown_setting(value))]
    again += _option("--executor", executor if executor != "local" else None) + _option("--ray-address", ray_address)
    result = execute(
        load(pipeline, set_),
        out=out,
        limit=limit,
        executor=executor,
        ray_address=ray_address,
        takeover=takeover,
        display=display,
        again=shlex.join(again) + key_hint(set_),
        given=Given(pipeline, read_text(pipeline), tuple(set_), os.getcwd()),
    )
    if json_:
        output.json_beside(result.summary, f"see {result.out_dir / 'summary.json'}")
    return result.exit_code


def execute(
    pipeline: Pipeline,
    *,
    out: str | None = None,
    limit: int | None = None,
    executor: str = "local",
    ray_address: str | None = None,
    takeover: bool = False,
    display: DisplayKind = "auto",
    again: str | None = None,
    given: Given | None = None,
    closing: bool = True,
) -> RunResult:
    """Run a pipeline under a display on stderr. A run that did not end well is an error at any display.

    again: the command that continues the run, shown when there is something to continue.
    given: how the pipeline was given, for later commands on the folder
    closing: whether the display ends with the figures of the run.
    """
    from penstock.report.display import choose
    from penstock.report.final import headline
    from penstock.runtime.run.api import RunOptions
    from penstock.runtime.run.api import run as run_pipeline

    shown = choose(display, sys.stderr)
    options = RunOptions(
        out=out,
        limit=limit,
        executor=executor,
        ray_address=ray_address,
        takeover=takeover,
        listener=shown.update,
        given=given,
        whole_process=True,
    )
    try:
        result = run_pipeline(pipeline, options)
    except BaseException:
        shown.close(None)
        raise
    shown.close(result.facts if closing else None, again=again)
    if result.exit_code and (display in ("json", "none") or not closing):
        output.error(headline(result.facts) + (f"; to continue: {again}" if again else ""))
    return result


def key_hint(sets: Sequence[str]) -> str:
    """What a command says whose settings are shown without their keys."""
    hidden = any(shown_setting(setting) != setting for setting in sets)
    return f"  (with the key in place of {MASK})" if hidden else ""


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]
