"""`penstock retry`: retry the dead rows of a run."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from penstock.cli import output
from penstock.cli.options import DEFAULTS, RunFlags, option
from penstock.cli.pipeline_file import load
from penstock.cli.run import show_run
from penstock.errors import DEAD_CODES, InputError, UsageError
from penstock.spec.problems import suggestion

if TYPE_CHECKING:
    from penstock.spec.pipeline import Pipeline


def retry(
    directory: Annotated[str, Parameter(help="The output folder of a run.")],
    /,
    *,
    code: Annotated[
        tuple[str, ...], Parameter(help="Only rows with this code, for example `engine_crash`. May be repeated.")
    ] = (),
    pipeline: Annotated[
        str | None, Parameter(help="The pipeline file, if the output folder has no copy of it or it has moved.")
    ] = None,
    flags: RunFlags = DEFAULTS,
) -> int:
    """Retry the dead rows of a finished run: all of them, or those with given codes.

    Rows that succeed are inserted into `data/` in their place and removed from `dead/`; those that fail again stay
    there with the new reason. The output changes only when all of them have ended. Run the same command to continue a
    retry that was stopped. An unfinished retry of other codes is completed first.
    """
    from penstock.ledger.view import read_run
    from penstock.runtime.retry.retry import retry as retry_rows
    from penstock.units import noun

    for name in code:
        if name not in DEAD_CODES:
            raise UsageError(f"unknown code {name!r}{suggestion(name, DEAD_CODES)}", where="--code")
    if not Path(directory).is_dir():
        raise InputError("no such folder; pass the output folder of a run", where=directory)
    read_run(Path(directory))  # so that a folder without a run is reported as such
    out = str(Path(directory).absolute())  # before the working directory becomes that of the run
    asked = load(pipeline, flags.set_) if pipeline is not None else _as_given(Path(directory), flags.set_)
    codes = [word for name in code for word in option("--code", name)]
    again = ["penstock", "retry", directory, *codes, *option("--pipeline", pipeline), *flags.words()]
    result = show_run(
        lambda options: retry_rows(asked, options, code),
        flags,
        again=shlex.join(again) + flags.key_hint,
        out=out,
    )
    if (done := result.summary.get("retried")) and not flags.is_quiet:
        output.note(f"{noun(done['rows'], 'dead row')} retried: {noun(done['out'], 'row')} out, {done['dead']} dead")
    return result.exit_code


def _as_given(out_dir: Path, sets: tuple[str, ...]) -> Pipeline:
    """The pipeline of the run. Changes to the working directory in which the run was started."""
    from penstock.runtime.run.pipeline_snapshot import read_given
    from penstock.spec.load import load_pipeline

    given = read_given(out_dir)
    settings = given.settings(out_dir, sets)
    try:
        os.chdir(given.folder)
    except OSError as error:
        raise UsageError(
            f"the run was started in {given.folder}, which can't be entered ({error.strerror}); change to the folder "
            "that its paths are relative to, and pass the pipeline file with --pipeline",
            where=str(out_dir),
        ) from None
    if given.folder not in sys.path:
        sys.path.insert(0, given.folder)
    return load_pipeline(given.text, given.file, settings)
