"""Which models share a pool, and which changes a resume refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spec_support import FILE

from penstock.spec.frozen import FrozenDict
from penstock.spec.identity import answer_identity, identity_diff, pipeline_identity, placement, pools
from penstock.spec.load import load_pipeline
from penstock.spec.model import Model
from penstock.spec.pipeline import Pipeline, Sink, Source
from penstock.spec.steps import Filter

BASE = """\
models:
  writer: {ref: "mock:writer", replicas: 2, engine_options: {seed: 1, ms_per_row: 2}}
source: {path: in.jsonl, batch_size: 50}
steps:
  - generate: {model: writer, prompt: "{{ q }}", output: a, max_tokens: 9, batch_size: 1000}
  - map: {function: "spec_functions:add_length", timeout_s: 9, workers: 2}
sink: {path: out, format: parquet, order: input}
max_dead: 3
commit_every_s: 5
resources: {reserve: {per_node: 1}}
"""


def identity(text: str) -> dict[str, Any]:
    return pipeline_identity(load_pipeline(text, FILE))


def test_it_is_json_and_survives_it() -> None:
    made = identity(BASE)
    assert json.loads(json.dumps(made)) == made
    assert identity_diff(json.loads(json.dumps(made)), made) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("batch_size: 50", "batch_size: 2000"),
        ("batch_size: 1000", "batch_size: 1"),
        ("replicas: 2", "replicas: 7"),
        ("ms_per_row: 2", "ms_per_row: 3, slots: 8, fail_on: xyz"),
        ("replicas: 2", "pool: x, progress_timeout_s: 9, tensor_parallel: 2, max_model_len: 99, python: py"),
        ("path: out,", "path: other,"),
        ("path: in.jsonl", "path: elsewhere.jsonl"),
        ("max_dead: 3", "max_dead: 0.5"),
        ("commit_every_s: 5", "commit_every_s: 1"),
        ("per_node: 1", "per_node: 2"),
        ("timeout_s: 9", "timeout_s: 99"),
        ("workers: 2", "workers: 1"),
        ("writer", "author"),
    ],
)
def test_what_may_change_between_the_halves_of_a_run(old: str, new: str) -> None:
    text = BASE.replace('"mock:writer"', '"mock:fixed"') if old == "writer" else BASE
    assert old in text
    assert identity(text.replace(old, new)) == identity(text)


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("{{ q }}", "{{ r }}", ["steps.generate.prompt: was '{{ q }}', is '{{ r }}'"]),
        ("max_tokens: 9", "max_tokens: 8", ["steps.generate.max_tokens: was 9, is 8"]),
        ("max_tokens: 9", "temperature: 0.5", None),
        ("seed: 1", "seed: 2", ["steps.generate.model.engine_options.seed: was 1, is 2"]),
        ("mock:writer", "mock:other", ["steps.generate.model.ref: was 'mock:writer', is 'mock:other'"]),
        ("order: input", "order: completion", ["sink.order: was 'input', is 'completion'"]),
        ("format: parquet", "format: jsonl", ["sink.format: was 'parquet', is 'jsonl'"]),
        ("max_dead: 3", "seed: 3", ["seed: was 0, is 3"]),
        ("timeout_s: 9", "version: 2", None),
        ("  - map", "  - filter: {expr: a}\n  - map", None),
    ],
)
def test_what_a_resume_refuses(old: str, new: str, lines: list[str] | None) -> None:
    assert old in BASE
    before, after = identity(BASE), identity(BASE.replace(old, new, 1))
    told = identity_diff(before, after)
    assert told != []
    if lines is not None:
        assert told == lines


def test_differences_name_steps() -> None:
    before = identity(BASE)
    after = identity(BASE.replace("  - map", "  - filter: {expr: a}\n  - map"))
    told = identity_diff(before, after)
    assert any(line.startswith("steps.filter: is new") for line in told)
    assert "steps.map.from: was 'generate', is 'filter'" in told


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "steps", "a"]), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=4), anything), st.dictionaries(st.text(max_size=4), anything))
def test_a_difference_is_told_exactly_when_there_is_one(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert identity_diff(old, old) == []
    if json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):
        assert identity_diff(old, new) != []


def pipeline_of(models: dict[str, Model]) -> Pipeline:
    return Pipeline(models=models, source=Source(path=("a",)), steps=(Filter(expr="a"),), sink=Sink(path="o"))


models = st.builds(
    lambda ref, options: Model(ref, **options),
    st.sampled_from(["mock:a", "mock:b"]),
    st.fixed_dictionaries(
        {},
        optional={
            "replicas": st.sampled_from(["auto", 1, 2, 3]),
            "pool": st.sampled_from(["x", "y"]),
            "tensor_parallel": st.sampled_from(["auto", 1, 2]),
            "dtype": st.sampled_from(["auto", "float32"]),
            "engine": st.sampled_from(["auto", "mock"]),
            "batch_size": st.sampled_from([1, 9]),
            "engine_options": st.sampled_from([{}, {"seed": 1}, {"seed": 0}, {"slots": 2}, {"eos_sigma": 1.0}]),
        },
    ),
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), models, min_size=1, max_size=6))
def test_pools_are_the_classes_of_equal_models(named: dict[str, Model]) -> None:
    made = pools(pipeline_of(named))
    assert sorted(name for pool in made for name in pool.names) == sorted(named)
    pool_of = {name: index for index, pool in enumerate(made) for name in pool.names}
    for one, left in named.items():
        for other, right in named.items():
            alike = (answer_identity(left), placement(left)) == (answer_identity(right), placement(right))
            assert alike == (pool_of[one] == pool_of[other])
    order = list(named)
    for pool in made:
        assert pool.name == pool.names[0] == min(pool.names, key=order.index)
        asked = [named[name].replicas for name in pool.names if named[name].replicas != "auto"]
        assert pool.replicas == (max(asked) if asked else "auto")


def shared(left: Model, right: Model) -> bool:
    return len(pools(pipeline_of({"left": left, "right": right}))) == 1


def test_who_shares_a_pool() -> None:
    assert shared(Model("mock:a"), Model("mock:a", replicas=3, batch_size=9))
    assert shared(Model("mock:a"), Model("mock:a", engine="mock"))
    assert shared(Model("mock:a"), Model("mock:a", engine_options={"seed": 0}))
    assert shared(Model("q/w@main"), Model("q/w", revision="main"))
    assert not shared(Model("mock:a"), Model("mock:b"))
    assert not shared(Model("mock:a"), Model("mock:a", pool="apart"))
    assert not shared(Model("mock:a"), Model("mock:a", engine_options={"seed": 1}))
    assert not shared(Model("mock:a"), Model("mock:a", engine_options={"slots": 4}))
    assert not shared(Model("q/w"), Model("q/w", tensor_parallel=2))
    assert not shared(Model("q/w"), Model("q/w", dtype="float16"))
    assert not shared(Model("q/w"), Model("q/w@main"))
    assert not shared(Model("q/w"), Model("q/w", task="embed"))


def test_engine_options_count_unless_they_are_known_to_be_placement() -> None:
    def options(**given: Any) -> dict[str, Any]:
        return answer_identity(Model("q/w", engine="vllm", engine_options=given))["engine_options"]  # type: ignore[no-any-return]

    assert options(max_num_seqs=4, gpu_memory_utilization=0.5) == {}
    assert options(rope_scaling={"type": "yarn", "factor": [1, 2]}) == {
        "rope_scaling": {"type": "yarn", "factor": [1, 2]}
    }


def test_secrets_stay_out_of_the_identity() -> None:
    model = Model("gpt", base_url="http://a/v1", engine_options={"api_key": "secret"})
    assert "secret" not in json.dumps(answer_identity(model))


def test_frozen_dict_equals_and_hashes_as_data() -> None:
    assert FrozenDict(a=1) == {"a": 1} and hash(FrozenDict(a=1, b=2)) == hash(FrozenDict(b=2, a=1))
