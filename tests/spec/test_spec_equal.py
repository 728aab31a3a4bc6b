"""YAML and the fluent API make equal frozen objects."""

from __future__ import annotations

import copy

import pytest
from pydantic import ValidationError

import penstock as ps
from penstock.errors import ConfigError, UsageError
from penstock.spec.load import load_pipeline
from penstock.spec.rows import Rows

CONTRACT = """\
models:
  writer: {ref: Qwen/Qwen3-8B, engine: auto, replicas: auto, tensor_parallel: auto, pipeline_parallel: auto,
           max_model_len: auto, dtype: auto, quantization: null, engine_options: {}}
  minilm: {ref: sentence-transformers/all-MiniLM-L6-v2, task: embed}
source: {path: questions.jsonl, batch_size: 50}
steps:
  - generate: {model: writer, prompt: "Answer briefly: {{ question }}", output: answer, max_tokens: 256,
               temperature: 0.0, batch_size: 1000}
  - embed:    {model: minilm, text: "{{ answer }}", output: embedding}
  - filter:   {expr: "answer | length > 20"}
  - map:      {function: "mypackage.steps:add_length"}
sink: {path: out/answers, format: parquet, order: input}
max_dead: 0.05
commit_every_s: 10
resources: {gpu_allocation_strategy: even, reserve: {per_node: 0}}
"""


def contract_rows() -> Rows:
    writer = ps.Model("Qwen/Qwen3-8B", name="writer")
    minilm = ps.Model("sentence-transformers/all-MiniLM-L6-v2", task="embed", name="minilm")
    rows = ps.read("questions.jsonl", batch_size=50)
    rows = rows.generate(
        writer,
        prompt="Answer briefly: {{ question }}",
        output="answer",
        max_tokens=256,
        temperature=0.0,
        batch_size=1000,
    )
    rows = rows.embed(minilm, text="{{ answer }}", output="embedding").filter("answer | length > 20")
    return rows.map("mypackage.steps:add_length").write("out/answers")


@pytest.mark.parametrize("text", ["json:loads", "os.path:exists"])
def test_text_that_names_a_function_is_one_in_filter_as_in_map(text: str) -> None:
    kept = ps.read("a").filter(text).write("out").to_pipeline().steps[0]
    mapped = ps.read("a").map(text).write("out").to_pipeline().steps[0]
    assert isinstance(kept, ps.Filter) and isinstance(mapped, ps.Map)
    assert (kept.function, kept.expr) == (mapped.function, None)


@pytest.mark.parametrize("text", ["a", "a[1:2]", "{'a': 1}[b]", "not a"])
def test_any_other_text_is_an_expression_in_filter(text: str) -> None:
    kept = ps.read("a").filter(text).write("out").to_pipeline().steps[0]
    assert isinstance(kept, ps.Filter)
    assert (kept.function, kept.expr) == (None, text)


def test_the_contract_file_equals_its_python_form() -> None:
    from_file, from_python = load_pipeline(CONTRACT, "a.yaml"), contract_rows().to_pipeline()
    assert from_file == from_python
    assert hash(from_file) == hash(from_python)


def test_another_place_in_the_file_changes_nothing() -> None:
    assert load_pipeline(CONTRACT, "a.yaml") == load_pipeline("# a comment\n\n" + CONTRACT, "b.yaml")


@pytest.mark.parametrize(
    ("old", "new"),
    [("256", "255"), ("answer | length > 20", "answer | length > 21"), ("out/answers", "out/b"), ("0.05", "5")],
)
def test_a_change_is_a_difference(old: str, new: str) -> None:
    assert load_pipeline(CONTRACT, "a.yaml") != load_pipeline(CONTRACT.replace(old, new), "a.yaml")


def test_branches_and_join() -> None:
    text = """\
models: {a: {ref: "mock:a"}, b: {ref: "mock:b"}}
source: in.jsonl
sink: {path: out, format: jsonl, order: completion}
steps:
  - filter: {expr: question}
  - generate: {model: a, prompt: "{{ question }}", output: short}
  - generate: {model: b, prompt: "{{ question }}", output: long, from: filter}
  - join: {from: generate, with: generate-2}
seed: 7
window: {rows: 1000}
"""
    base = ps.read("in.jsonl").filter("question")
    left = base.generate(ps.Model("mock:a"), prompt="{{ question }}", output="short")
    right = base.generate(ps.Model("mock:b"), prompt="{{ question }}", output="long")
    rows = left.join(right).write("out", format="jsonl", order="completion")
    from penstock.spec.pipeline import Window

    assert rows.to_pipeline(seed=7, window=Window(rows=1000)) == load_pipeline(text, "a.yaml")
    order = rows.to_pipeline().order()
    assert [(node.name, node.after) for node in order] == [
        ("filter", ()),
        ("generate", (0,)),
        ("generate-2", (0,)),
        ("join", (1, 2)),
    ]


def test_messages_stop_and_functions_are_equal() -> None:
    text = """\
models: {m: {ref: "mock:m", engine_options: {slots: 4}}}
source: {path: [a.jsonl, b.jsonl], schema: {question: string}}
sink: out
steps:
  - generate:
      model: m
      messages: [{role: system, content: Be brief.}, {role: user, content: "{{ question }}"}]
      output: answer
      n: 2
      meta: true
      stop: ["###", "\\n"]
      max_tokens: "{{ limit }}"
  - expand: {function: "tests_functions:split", version: 2, columns: [word]}
  - map: {function: "tests_functions:add", timeout_s: 5, workers: 2, columns: [length]}
"""
    model = ps.Model("mock:m", engine_options={"slots": 4})
    rows = ps.read(["a.jsonl", "b.jsonl"], schema={"question": "string"}).generate(
        model,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ question }}"}],
        output="answer",
        n=2,
        meta=True,
        stop=("###", "\n"),
        max_tokens="{{ limit }}",
    )
    rows = rows.expand("tests_functions:split", version="2", columns=["word"])
    rows = rows.map("tests_functions:add", timeout_s=5, workers=2, columns=("length",))
    assert rows.write("out").to_pipeline() == load_pipeline(text, "a.yaml")


def test_nothing_can_be_changed() -> None:
    pipeline = load_pipeline(CONTRACT, "a.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        pipeline.seed = 3  # type: ignore[misc]
    with pytest.raises(TypeError, match="immutable"):
        pipeline.models["writer"] = ps.Model("mock:x")
    with pytest.raises(TypeError, match="immutable"):
        ps.Model("mock:x", engine_options={"slots": 2}).engine_options["slots"] = 3
    assert copy.deepcopy(pipeline) == pipeline


def test_rows_are_immutable_so_branches_do_not_mix() -> None:
    base = ps.read("in.jsonl")
    kept, dropped = base.filter("a").write("out"), base.filter("not a").write("out")
    assert [node.step for node in kept.to_pipeline().order()] != [node.step for node in dropped.to_pipeline().order()]
    assert len(kept.to_pipeline().steps) == 1


class TestLabels:
    def label(self, *models: ps.Model) -> list[str]:
        rows = ps.read("in.jsonl")
        for index, model in enumerate(models):
            rows = rows.generate(model, prompt="{{ q }}", output=f"o{index}")
        return list(rows.write("out").to_pipeline().models)

    def test_default_is_the_last_part_in_lower_case(self) -> None:
        assert self.label(ps.Model("Qwen/Qwen3-8B@main"), ps.Model("mock:Writer"), ps.Model("/m/Big/")) == [
            "qwen3-8b",
            "writer",
            "big",
        ]

    def test_equal_models_have_one_label(self) -> None:
        assert self.label(ps.Model("mock:a"), ps.Model("mock:a")) == ["a"]

    def test_different_models_have_two(self) -> None:
        assert self.label(ps.Model("mock:a"), ps.Model("mock:a", replicas=2)) == ["a", "a-2"]

    def test_one_name_for_two_models_is_refused(self) -> None:
        with pytest.raises(UsageError, match="two different models are named 'x'"):
            self.label(ps.Model("mock:a", name="x"), ps.Model("mock:b", name="x"))


class TestRowsRefuse:
    def test_a_text_for_a_model(self) -> None:
        with pytest.raises(UsageError, match="write Model\\('gpt'\\)"):
            ps.read("a").generate("gpt", prompt="x", output="o")  # type: ignore[arg-type]

    def test_no_sink(self) -> None:
        with pytest.raises(UsageError, match="write\\(PATH\\)"):
            ps.read("a").filter("x").to_pipeline()

    def test_steps_after_write(self) -> None:
        with pytest.raises(UsageError, match="comes last"):
            ps.read("a").filter("x").write("o").filter("y")

    def test_join_of_two_sources(self) -> None:
        with pytest.raises(UsageError, match="same read"):
            ps.read("a").filter("x").join(ps.read("b").filter("y"))

    def test_no_steps(self) -> None:
        with pytest.raises(ConfigError, match="no steps"):
            ps.read("a").write("o").to_pipeline()

    def test_wrong_values_by_keyword(self) -> None:
        with pytest.raises(ConfigError, match=r"Generate\.max_tokens: 'max_tokens': expected a whole number"):
            ps.read("a").generate(ps.Model("mock:a"), prompt="x", output="o", max_tokens=0)

    def test_rows_that_are_no_dicts(self) -> None:
        with pytest.raises(ConfigError, match="row 1 is 3"):
            ps.read([{"a": 1}, 3])  # type: ignore[list-item]


def test_rows_in_memory() -> None:
    pipeline = ps.read([{"a": 1}, {"a": 2}]).filter("a > 1").write("out").to_pipeline()
    assert pipeline.source.rows == ({"a": 1}, {"a": 2}) and pipeline.source.paths == ()
    assert ps.read([]).filter("a").write("out").to_pipeline().source.rows == ()
