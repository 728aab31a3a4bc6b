"""`penstock demo`: an example on real text found on this machine, with a model that ships with the package."""

from __future__ import annotations

import importlib.resources
import json
import os
import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from penstock import engine_info
from penstock.cli import output
from penstock.cli.demo_functions import find_functions
from penstock.cli.demo_pipeline import DemoFiles, pipeline_text, source_text, write_files
from penstock.cli.machine import usable_cores
from penstock.cli.options import DisplayFlag, RunFlags
from penstock.errors import InputError, MissingDependency
from penstock.spec.engines import AUTO

_SHOWN_ROWS = 8
_PACKAGED_ENGINE = "transformers"  # the one that is quick on a few cores
_SMALL_MODEL_NOTE = """\
These lines come from docwriter, a 5.5M-parameter model that ships with Penstock. They are fluent, but often wrong:
the demo shows that the pipeline works, not what language models can do."""


def demo(
    *,
    rows: Annotated[int, Parameter(help="Number of functions.", show_default=True, validator=Number(gte=1))] = 600,
    out: Annotated[
        str, Parameter(help="The folder for source, pipeline file and output.", show_default=True)
    ] = "penstock-demo",
    model: Annotated[str | None, Parameter(help="Another model: a hub id, a local folder, or mock:NAME.")] = None,
    engine: Annotated[str | None, Parameter(help="The engine: transformers, vllm, ...")] = None,
    replicas: Annotated[int | None, Parameter(help="Number of replicas of the model.", validator=Number(gte=1))] = None,
    display: DisplayFlag = "auto",
) -> int:
    """Run an example on real text: write docstrings for undocumented functions of this Python installation.

    A small model that ships with Penstock runs on the CPU; no network or API key is needed. The output folder has
    the source and the pipeline file, to change and run again.
    """
    from penstock.cli.pipeline_file import load
    from penstock.cli.run import show_run
    from penstock.runtime.run.api import run

    packaged = model is None
    chosen = engine or (_PACKAGED_ENGINE if packaged else AUTO)
    _require(chosen)
    if packaged:
        # The packaged model is far too small for a GPU to help; two copies on the CPU run on any machine.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    files = DemoFiles(Path(out))
    text = pipeline_text(
        files,
        model=model or str(packaged_model()),
        engine=chosen,
        replicas=replicas or (min(2, usable_cores()) if packaged else "auto"),
    )
    write_files(files, _source(rows), text)
    again = shlex.join(["penstock", "run", str(files.pipeline)])
    result = show_run(partial(run, load(str(files.pipeline))), RunFlags(display=display), again=again)
    if result.exit_code == 0:
        rows_out = read_rows(files.run / "data")
        shown = closing(files, rows_out, packaged=packaged, again=again)
        output.beside(shown, f"the rows are in {files.run / 'data'}")
    return result.exit_code


def packaged_model() -> Path:
    """The folder of the model that ships with the package."""
    return Path(str(importlib.resources.files("penstock"))) / "models" / "docwriter"


def _require(engine: str) -> None:
    """Raises MissingDependency before a file is written; `auto` is resolved when the run starts."""
    if engine == AUTO:
        return
    info = engine_info.info_of(engine)
    if not engine_info.is_installed(info):
        hint = engine_info.install_hint(info)
        raise MissingDependency(f"the demo needs the engine {engine}, which is not installed: {hint}")


def _source(rows: int) -> str:
    functions = list(find_functions(rows))
    if not functions:
        raise InputError("no undocumented Python functions found: this Python has no standard library sources")
    last = functions[-1].package
    output.note(f"found {len(functions)} functions without a docstring, from {functions[0].package} to {last}")
    return source_text(functions)


def read_rows(data: Path) -> list[dict[str, Any]]:
    """The demo's output rows, in order."""
    lines = (line for part in sorted(data.glob("*.jsonl")) for line in part.read_text("utf-8").splitlines())
    return [json.loads(line) for line in lines]


def closing(files: DemoFiles, rows: list[dict[str, Any]], *, packaged: bool, again: str) -> str:
    """The closing text of the demo: some rows, where they are, how to read them, what to try next."""
    stride = max(len(rows) // _SHOWN_ROWS, 1)
    shown = rows[::stride][:_SHOWN_ROWS]
    lines = ["", f"{len(shown)} of {len(rows)} rows (unedited):"]
    for row in shown:
        lines += [f"  {row['module']}: {row['signature']}", f"      {str(row['docstring']).strip()}"]
    if packaged:
        lines += ["", _SMALL_MODEL_NOTE]
    first_part = files.run / "data" / "part-00000.jsonl"
    steps = [
        ("read", f"head {shlex.quote(str(first_part))}", "all rows, in input order"),
        ("change", shlex.quote(str(files.pipeline)), "the pipeline file, to adapt"),
        ("again", again, "finished rows are not repeated"),
        ("next", "penstock demo --out penstock-demo-2 --model Qwen/Qwen3-0.6B", "a real model (downloads 1.5 GB)"),
        ("", "penstock doctor", "what this machine can run"),
    ]
    return "\n".join([*lines, "", output.table(steps)])
