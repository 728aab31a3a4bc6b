"""`penstock preview`: run a few rows through every step and print the result."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from penstock.cli import output
from penstock.cli.options import AsJson, DisplayFlag, PipelineFile, RunFlags, Sets
from penstock.cli.pipeline_file import load
from penstock.cli.run import show_run
from penstock.units import noun

if TYPE_CHECKING:
    from penstock.spec.pipeline import Pipeline

_VALUE_CHARACTERS = 2000


def preview(
    pipeline: PipelineFile,
    /,
    *,
    rows: Annotated[
        int, Parameter(name=["--rows", "-n"], help="Number of rows.", show_default=True, validator=Number(gte=1))
    ] = 5,
    set_: Sets = (),
    display: DisplayFlag = "auto",
    json_: AsJson = False,
) -> int:
    """Run the first rows through every step and print the result.

    One replica of each model is loaded. The output folder of the pipeline is neither read nor written.
    """
    from penstock.runtime.run.api import run

    plan = small(load(pipeline, set_), rows)
    with tempfile.TemporaryDirectory(prefix="penstock-preview-") as folder:
        out = Path(folder) / "run"
        flags = RunFlags(display=display)
        result = show_run(partial(run, plan), flags, closing=False, out=str(out), limit=rows)
        found, dead = read_parts(out / "data"), read_parts(out / "dead")
    if json_:
        output.json_data({"rows": found, "dead": dead})
    else:
        output.data(describe(found, dead))
    return result.exit_code


def small(pipeline: Pipeline, rows: int) -> Pipeline:
    """The same pipeline with one replica of each model, without a limit for dead rows."""
    from penstock.spec.frozen import FrozenDict

    models = {name: model.model_copy(update={"replicas": 1}) for name, model in pipeline.models.items()}
    return pipeline.model_copy(update={"models": FrozenDict(models), "max_dead": rows})


def read_parts(folder: Path) -> list[dict[str, Any]]:
    """All rows of the parts in a folder of a run; none if the folder is missing or empty."""
    from penstock.data.open import open_source

    if not folder.is_dir() or not any(folder.iterdir()):
        return []
    source = open_source(str(folder))
    try:
        rows: list[dict[str, Any]] = []
        position = 0
        while (chunk := source.read(position, None, 1000)) is not None:
            rows += chunk.rows
            position = chunk.next_position
        return rows
    finally:
        source.close()


def describe(rows: list[dict[str, Any]], dead: list[dict[str, Any]]) -> str:
    """The rows as blocks of `column: value`, then the dead ones with their reasons."""
    blocks = [_block(f"row {number}", row) for number, row in enumerate(rows)]
    for row in dead:
        place = f"{row['source']} row {row['row']}" + (f" in step {row['step']}" if row["step"] else "")
        blocks.append(_block(f"dead: {place}", {row["code"]: row["message"], "input": row["input"]}))
    blocks.append(f"{noun(len(rows), 'row')} out, {len(dead)} dead")
    return "\n\n".join(blocks)


def _block(heading: str, row: dict[str, Any]) -> str:
    lines = [heading]
    for column, value in row.items():
        text = str(value)
        if len(text) > _VALUE_CHARACTERS:
            text = f"{text[:_VALUE_CHARACTERS]}… ({len(text):,} characters)"
        if "\n" in text:
            lines += [f"  {column}:", *(f"    {line}" for line in text.splitlines())]
        else:
            lines.append(f"  {column}: {text}")
    return "\n".join(lines)
