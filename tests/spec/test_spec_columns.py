"""Templates name columns that exist where they stand."""

from __future__ import annotations

import pytest
from spec_support import FILE, HEAD, ONE_STEP, load

import penstock as ps
from penstock.errors import ConfigError
from penstock.spec.columns import check_columns, columns_after
from penstock.spec.load import load_pipeline

SOURCE = ("question", "topic", "parts")


def refused(steps: str, source: tuple[str, ...] | None = SOURCE) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_columns(load(steps), source)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            "  - filter: {expr: 'questoin | length'}\n",
            "7: 'expr' names column 'questoin', which no earlier step produces; did you mean 'question'?",
        ),
        (
            "  - generate: {model: writer, prompt: '{{ xyz }}', output: o}\n",
            "7: 'prompt' names column 'xyz', which no earlier step produces; available columns: question, topic, parts",
        ),
        (
            "  - generate: {model: writer, prompt: a, output: o, max_tokens: '{{ limit }}'}\n",
            "7: 'max_tokens' names column 'limit', which no earlier step produces",
        ),
        (
            "  - generate:\n      model: writer\n      output: o\n      messages:\n"
            "        - {role: system, content: a}\n        - {role: user, content: '{{ topc }}'}\n",
            "12: 'messages' names column 'topc', which no earlier step produces; did you mean 'topic'?",
        ),
        (
            "  - embed: {model: vectors, text: '{{ anser }}', output: v}\n",
            "7: 'text' names column 'anser', which no earlier step produces",
        ),
        (
            "  - expand: {column: part}\n",
            "7: 'column' names column 'part', which no earlier step produces; did you mean",
        ),
        (
            "  - filter: {expr: answer}\n" + ONE_STEP,
            "7: 'expr' names column 'answer', which no earlier step produces; step 'generate' produces it, but "
            "does not",
        ),
        (
            "  - generate: {model: writer, prompt: a, output: topic}\n",
            "7: column 'topic' already exists in the source and can't be overwritten; choose another name",
        ),
        (
            "  - map: {function: 'm:f', columns: [length]}\n  - filter: {expr: lenght > 3}\n",
            "8: 'expr' names column 'lenght', which no earlier step produces; did you mean 'length'?",
        ),
        (
            "  - expand: {column: parts}\n  - filter: {expr: part_item}\n",
            "8: 'expr' names column 'part_item', which no earlier step produces; did you mean 'parts_item'?",
        ),
    ],
)
def test_unknown_columns(steps: str, message: str) -> None:
    (line,) = refused(steps)
    assert line.startswith(f"{FILE}:{message}")


def test_each_is_told() -> None:
    lines = refused("  - filter: {expr: aa}\n  - filter: {expr: bb}\n")
    assert [line.split(" ")[0] for line in lines] == [f"{FILE}:7:", f"{FILE}:8:"]


@pytest.mark.parametrize(
    "steps",
    [
        ONE_STEP + "  - filter: {expr: answer and question}\n",
        "  - generate: {model: writer, prompt: a, output: o, meta: true, logprobs: 1}\n"
        "  - filter: {expr: o_meta and o_logprobs}\n",
        "  - map: {function: 'm:f'}\n  - filter: {expr: anything}\n",
        "  - expand: {function: 'm:f'}\n  - filter: {expr: anything}\n",
        "  - expand: {column: parts, output: part}\n  - filter: {expr: part}\n",
        "  - filter: {expr: question, name: left}\n"
        "  - generate: {model: writer, prompt: a, output: o, from: source}\n"
        "  - join: {from: left, with: generate}\n  - filter: {expr: o and question}\n",
    ],
)
def test_columns_that_exist(steps: str) -> None:
    check_columns(load(steps), SOURCE)


def test_without_knowledge_of_the_source_nothing_is_refused() -> None:
    check_columns(load("  - filter: {expr: anything}\n"), None)


def test_columns_after() -> None:
    steps = ONE_STEP + "  - filter: {expr: answer}\n  - map: {function: 'm:f'}\n"
    assert columns_after(load(steps), ["question"]) == [("question", "answer"), ("question", "answer"), None]


def test_the_place_of_an_override_is_the_flag() -> None:
    pipeline = load_pipeline(HEAD + ONE_STEP, FILE, ["steps.generate.prompt={{ topc }}"])
    with pytest.raises(ConfigError, match=r"^--set steps.generate.prompt=.*: 'prompt' names column 'topc'"):
        check_columns(pipeline, SOURCE)


def test_the_place_in_python_is_the_path() -> None:
    pipeline = ps.read("a").filter("topc").write("o").to_pipeline()
    with pytest.raises(ConfigError, match=r"^Pipeline\.steps\.0\.filter\.expr: "):
        check_columns(pipeline, SOURCE)
