"""Small pipelines for the tests of the specification."""

from __future__ import annotations

from penstock.errors import ConfigError
from penstock.spec.load import load_pipeline
from penstock.spec.pipeline import Pipeline

FILE = "pipeline.yaml"
HEAD = """\
models:
  writer: {ref: "mock:writer"}
  vectors: {ref: "mock:vectors", task: embed}
source: questions.jsonl
sink: out
steps:
"""
ONE_STEP = '  - generate: {model: writer, prompt: "{{ question }}", output: answer}\n'


def load(steps: str = ONE_STEP, head: str = HEAD) -> Pipeline:
    return load_pipeline(head + steps, FILE)


def refused(text: str, sets: tuple[str, ...] = ()) -> list[str]:
    """The lines of the error that `text` gives."""
    try:
        pipeline = load_pipeline(text, FILE, sets)
    except ConfigError as error:
        assert error.exit_code == 2 and error.where is not None
        return str(error).splitlines()
    raise AssertionError(f"accepted: {pipeline!r}")
