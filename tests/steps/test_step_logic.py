from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.data.columns import TableBuilder
from penstock.errors import DEAD_CODES, ConfigError
from penstock.protocol.messages import Answer, Output, Request
from penstock.protocol.options import Sampling
from penstock.protocol.payloads import chat
from penstock.spec.steps import Embed, Expand, Filter, Generate, Map
from penstock.steps.base import Children, Columns, Failed, Filtered
from penstock.steps.registry import logic_for

ROW = {"q": "Why?", "tags": ["a", "b"], "none": None}


def answer(*texts: str, value: Any = None) -> Answer:
    outputs = [Output(text, "stop", len(text), None, [-0.5] * len(text)) for text in texts]
    return Answer(1, 1, "", "", outputs, value, 7)


def children_of(outcome: Any) -> list[dict[str, Any]]:
    """The rows of an expansion, each of which has a size."""
    assert type(outcome) is Children and len(outcome.sizes_bytes) == len(outcome.rows)
    return outcome.rows


def test_generate_renders_and_adds_its_column() -> None:
    logic = logic_for(Generate(model="m", prompt="Say {{ q }}", output="answer", max_tokens=5))
    assert logic.pool == "model"
    assert logic.render(ROW) == Request("Say Why?", Sampling(max_tokens=5))
    assert logic.apply(ROW, answer("Because")) == Columns({**ROW, "answer": "Because"})
    assert "answer" not in ROW


def test_generate_with_messages_and_failures_of_the_row() -> None:
    logic = logic_for(
        Generate(model="m", messages=[{"role": "user", "content": "{{ q }}"}], output="a", max_tokens="{{ n }}")
    )
    asked = logic.render({**ROW, "n": 3})
    assert asked == Request(chat([{"role": "user", "content": "Why?"}]), Sampling(max_tokens=3))
    missing, wrong = logic.render(ROW), logic.render({**ROW, "n": "x"})
    assert isinstance(missing, Failed) and missing.code == "template_missing_field"
    assert isinstance(wrong, Failed) and wrong.code == "bad_sampling"


@pytest.mark.parametrize("n", [1, 3])
def test_generated_columns_fit_the_types_told_ahead(n: int) -> None:
    logic = logic_for(Generate(model="m", prompt="{{ q }}", output="a", n=n, meta=True, logprobs=0))
    outcome = logic.apply(ROW, answer(*["ab"] * n))
    assert isinstance(outcome, Columns)
    assert outcome.row["a_meta"]["tokens_in"] == 7
    source = pa.schema([("q", pa.string()), ("tags", pa.list_(pa.string())), ("none", pa.string())])
    table, rejected = TableBuilder(pa.schema([*source, *(logic.columns or ())])).build([outcome.row])
    assert rejected == []
    assert table.column_names == ["q", "tags", "none", "a", "a_meta", "a_logprobs"]
    assert table.to_pylist() == [outcome.row]
    assert (table["a"].to_pylist()[0] == "ab") == (n == 1)


def test_too_few_outputs_are_a_failure() -> None:
    logic = logic_for(Generate(model="m", prompt="{{ q }}", output="a", n=2))
    outcome = logic.apply(ROW, answer("one"))
    assert isinstance(outcome, Failed) and outcome.code == "engine_error"


def test_filter_by_expression_needs_no_pool() -> None:
    logic = logic_for(Filter(expr="q | length > 3"))
    assert logic.pool is None
    assert logic.apply(ROW, None) == Columns(ROW)
    assert logic.apply({"q": "?"}, None) == Filtered()
    failed = logic.apply({}, None)
    assert isinstance(failed, Failed) and failed.code == "template_missing_field"


def test_filter_by_function() -> None:
    logic = logic_for(Filter(function="m:f"))
    assert logic.pool == "python"
    assert logic.render(ROW) == Request(ROW)
    assert logic.apply(ROW, answer(value=[1])) == Columns(ROW)
    assert logic.apply(ROW, answer(value="")) == Filtered()


def test_map_merges_what_the_function_returns() -> None:
    logic = logic_for(Map(function="m:f"))
    assert logic.apply(ROW, answer(value={"q": "new", "n": 1})) == Columns({**ROW, "q": "new", "n": 1})
    assert logic.apply(ROW, answer(value={})) == Columns(ROW)


@pytest.mark.parametrize("value", [None, 1, [], "row", {1: 2}, {"": 1}])
def test_map_refuses_what_is_no_row(value: Any) -> None:
    outcome = logic_for(Map(function="m:f")).apply(ROW, answer(value=value))
    assert isinstance(outcome, Failed) and outcome.code == "function_result"


def test_expand_by_function() -> None:
    logic = logic_for(Expand(function="m:f"))
    assert children_of(logic.apply(ROW, answer(value=[{"i": 0}, {"i": 1}]))) == [{**ROW, "i": 0}, {**ROW, "i": 1}]
    assert logic.apply(ROW, answer(value=[])) == Filtered()
    assert logic.apply(ROW, answer(value=None)) == Filtered()
    for value in (1, {"a": 1}, [{"a": 1}, 2], "ab"):
        outcome = logic.apply(ROW, answer(value=value))
        assert isinstance(outcome, Failed) and outcome.code == "function_result"


def test_expand_by_column() -> None:
    logic = logic_for(Expand(column="tags", output="tag"))
    assert logic.pool is None
    assert children_of(logic.apply(ROW, None)) == [{**ROW, "tag": "a"}, {**ROW, "tag": "b"}]
    assert logic.apply({"tags": None}, None) == logic.apply({"tags": []}, None) == Filtered()
    wrong, missing = logic.apply({"tags": "ab"}, None), logic.apply({}, None)
    assert isinstance(wrong, Failed) and wrong.code == "type_mismatch"
    assert isinstance(missing, Failed) and missing.code == "template_missing_field"


def test_kinds_without_logic_are_told() -> None:
    with pytest.raises(ConfigError, match="'embed' can't be run yet"):
        logic_for(Embed(model="m", text="{{ q }}", output="v"))


rows = st.dictionaries(st.sampled_from(["q", "tags", "x"]), st.none() | st.text() | st.lists(st.integers()))
STEPS = [
    Generate(model="m", prompt="{{ q | trim }}", output="a", max_tokens="{{ x }}"),
    Filter(expr="q > x"),
    Filter(function="m:f"),
    Map(function="m:f"),
    Expand(function="m:f"),
    Expand(column="tags"),
]


@given(st.sampled_from(STEPS), rows, st.none() | st.integers() | rows | st.lists(rows | st.integers()))
def test_steps_never_raise_and_never_change_the_row(step: Any, row: dict[str, Any], value: Any) -> None:
    before = repr(row)
    logic = logic_for(step)
    for outcome in (logic.render(row), logic.apply(row, answer("t", value=value))):
        assert not isinstance(outcome, Failed) or outcome.code in DEAD_CODES
        assert not isinstance(outcome, Children) or outcome.rows
    assert repr(row) == before


def test_what_a_row_is_expanded_into_is_bounded() -> None:
    """Each child carries the list: 100,000 parts would be 10^10 values."""
    row = {"q": "x", "parts": ["part"] * 100_000}
    failed = logic_for(Expand(column="parts", output="part")).apply(row, None)
    assert isinstance(failed, Failed) and failed.code == "encode_error"
    assert (
        "its 100,000 rows would take about" in failed.message and "the limit for those of one row is" in failed.message
    )
    assert """jq -c 'del(.["parts"]) + {"part": .["parts"][]}' FILE > NEW.jsonl""" in failed.message
    assert len(children_of(logic_for(Expand(column="parts")).apply({"parts": ["part"] * 1000}, None))) == 1000


def test_what_a_function_expands_a_row_into_is_bounded() -> None:
    row = {"q": "x" * 1_000_000}
    failed = logic_for(Expand(function="m:f")).apply(row, answer(value=[{"i": i} for i in range(2000)]))
    assert isinstance(failed, Failed) and failed.code == "function_result" and "2,000 rows" in failed.message


def test_a_value_is_shown_without_making_its_whole_text() -> None:
    failed = logic_for(Map(function="m:f")).apply(ROW, answer(value=[0] * 1_000_000))
    assert isinstance(failed, Failed) and len(failed.message) < 300
