"""The files of the demo: the source (functions as JSON Lines) and the pipeline file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import msgspec

from penstock.cli.demo_functions import Function
from penstock.errors import UsageError

PROMPT = "Write a one-line docstring for:\n{{ signature }}"
# A line of a docstring is at most some twenty words.
MAX_TOKENS = 48


class DemoFiles(msgspec.Struct, frozen=True):
    """Where the demo keeps its files: `source` and `pipeline` beside the run's own folder `run`."""

    folder: Path

    @property
    def source(self) -> Path:
        return self.folder / "functions.jsonl"

    @property
    def pipeline(self) -> Path:
        return self.folder / "pipeline.yaml"

    @property
    def run(self) -> Path:
        return self.folder / "run"


def source_text(functions: Iterable[Function]) -> str:
    """One JSON object per line: package, module, name, signature, line."""
    return "".join(msgspec.json.encode(function).decode() + "\n" for function in functions)


def pipeline_text(files: DemoFiles, *, model: str, engine: str, replicas: int | str) -> str:
    """The pipeline file. JSON strings are YAML strings, so any path or reference is quoted rightly."""
    return f"""\
# Written by `penstock demo`. Change it, then run it from the same folder:
#   penstock run {files.pipeline}
models:
  writer: {{ref: {json.dumps(model)}, engine: {json.dumps(engine)}, replicas: {json.dumps(replicas)}}}
source: {{path: {json.dumps(str(files.source))}}}
steps:
  - generate:
      model: writer
      prompt: {json.dumps(PROMPT)}
      output: docstring
      max_tokens: {MAX_TOKENS}
      temperature: 0.0
sink: {{path: {json.dumps(str(files.run))}, format: jsonl}}
commit_every_s: 2
"""


def write_files(files: DemoFiles, source: str, pipeline: str) -> None:
    """Write what is not there yet. Raises UsageError where the folder holds the demo of something else."""
    wanted = {files.source: source, files.pipeline: pipeline}
    changed = [path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text]
    if files.run.exists() and changed:
        names = " and ".join(path.name for path in changed)
        raise UsageError(
            f"contains a demo with another {names}; choose another folder with --out, or delete this one",
            where=str(files.folder),
        )
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
        for path in changed:
            path.write_text(wanted[path], "utf-8")
    except OSError as error:
        raise UsageError(
            f"can't be written: {error.strerror}; choose another folder with --out", where=str(files.folder)
        ) from None
