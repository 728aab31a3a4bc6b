"""Every pipeline and every key in docs/pipeline.md is one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import penstock as ps
from penstock.engine_info import info_of, model_engines
from penstock.spec.load import load_pipeline
from penstock.spec.model import Model
from penstock.spec.pipeline import Pipeline, Resources, Sink, Source
from penstock.spec.sampling import SAMPLING_RULES
from penstock.spec.steps import STEP_KINDS

TEXT = (Path(__file__).parents[2] / "docs" / "pipeline.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_pipelines_load(text: str) -> None:
    assert load_pipeline(text, "docs").steps


@pytest.mark.parametrize("text", blocks("python"))
def test_python_parses_and_calls_what_exists(text: str) -> None:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = {"ps": ps, "rows": ps.Rows}[node.value.id]
            assert hasattr(owner, node.attr)


def test_the_two_forms_at_the_top_are_equal() -> None:
    llm = ps.Model("Qwen/Qwen3-8B", name="writer")
    rows = ps.read("questions.jsonl")
    rows = rows.generate(llm, prompt="Answer briefly: {{ question }}", output="answer", max_tokens=256)
    rows = rows.filter("answer | length > 20").write("out/answers")
    assert rows.to_pipeline() == load_pipeline(blocks("yaml")[0], "docs")


def test_every_key_is_told() -> None:
    kinds = (Pipeline, Source, Sink, Resources, Model, *STEP_KINDS.values())
    keys = {key for kind in kinds for key in kind.key_names()} - {"rows"}
    for key in {*keys, *SAMPLING_RULES, *info_of("mock").options, *(info.name for info in model_engines())}:
        assert re.search(rf"\b{re.escape(key)}\b", TEXT), key
