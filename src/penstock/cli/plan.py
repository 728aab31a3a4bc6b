"""`penstock plan`: the placement of models and the reasons for it. Loads no model."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from penstock.cli import output
from penstock.cli.options import AsJson, PipelineFile, Sets
from penstock.cli.pipeline_file import load, read_text
from penstock.errors import ExitCode

if TYPE_CHECKING:
    from penstock.planner.result import Plan

_WIDTH = 100  # where stdout is no terminal


def plan(
    pipeline: PipelineFile,
    /,
    *,
    cluster: Annotated[
        str | None, Parameter(help="A cluster file (YAML): the machines to plan for, instead of this one.")
    ] = None,
    set_: Sets = (),
    json_: AsJson = False,
) -> int:
    """Show the placement of models and the reasons for it, without loading them.

    Reads config.json and the headers of the weights; no engine or device is required. If the models do not fit, the
    output has the required and available memory and changes that would fit, and the exit code is 2.
    """
    import msgspec

    from penstock.planning.plan import plan as plan_pipeline
    from penstock.spec.cluster import read_cluster

    asked = load(pipeline, set_)
    machines = read_cluster(read_text(cluster, "cluster"), cluster) if cluster is not None else None
    made = plan_pipeline(asked, machines)
    if json_:
        output.json_data(msgspec.to_builtins(made))
    else:
        output.styled(drawn(made))
    if made.fits:
        return 0
    output.error(made.reason or "the models do not fit")
    return ExitCode.USAGE


def drawn(made: Plan) -> str:
    """The plan as text, in colour on a terminal."""
    import io

    from rich.console import Console

    from penstock.report.plan_view import view
    from penstock.terminal import cleaned

    on_terminal = sys.stdout.isatty()
    width = None if on_terminal else _WIDTH
    console = Console(file=io.StringIO(), force_terminal=on_terminal, width=width, highlight=False)
    width = min(console.width, 120)
    with console.capture() as captured:
        console.print(view(cleaned(made), width=width))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
