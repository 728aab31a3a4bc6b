from __future__ import annotations

import string
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.data import templates
from penstock.data.templates import Conversation, Expression, Template, TemplateFailure
from penstock.errors import ConfigError
from penstock.spec.template_meter import METER
from penstock.spec.templates import environment

names = st.sampled_from(["question", "a", "_b", "self", "range", "dict", "loop", "none", "true"])
values = (
    st.text()
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.lists(st.integers(), max_size=2)
    | st.binary(max_size=3)
)
pieces = st.one_of(
    st.text(string.printable, max_size=8).filter(lambda text: "{" not in text and "}" not in text),
    names.map(lambda name: "{{ " + name + " }}"),
    names.map(lambda name: "{{-" + name + "-}}\n"),
    st.sampled_from(["{# a note #}", "{% raw %}{{ a }}{% endraw %}", "{{ 1 }}", "\r\n", "\n", "{{ a | upper }}"]),
)


@given(st.lists(pieces, max_size=6).map("".join), st.dictionaries(names, values))
def test_the_joined_text_is_that_of_jinja(text: str, row: dict[str, Any]) -> None:
    try:
        METER.begin()
        expected: str | None = environment().from_string(text).render(row)
    except jinja2.UndefinedError:
        expected = None
    except jinja2.TemplateError:
        return
    try:
        found: str | None = Template(text).render(row)
    except TemplateFailure as failure:
        assert failure.code == "template_missing_field"
        found = None
    if "{{ none }}" not in text and "{{-none-}}" not in text:  # a template never says "None"
        assert found == expected


@pytest.mark.parametrize("text", ["Answer: {{ answer }}", "Answer: {{ answer | trim }}"])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": 1, "void": None}, "no column 'answer'; the row has id"),
        ({"id": 1, "answer": None}, "column 'answer' is null; the row has id"),
        ({}, "no column 'answer'; the row has no values"),
    ],
)
def test_a_missing_or_null_column_is_told(text: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(TemplateFailure) as caught:
        Template(text).render(row)
    assert caught.value.code == "template_missing_field"
    if "trim" not in text or "null" not in message:
        assert message.partition(";")[0] in caught.value.message
    assert message.partition("; ")[2] in caught.value.message


def test_null_inside_a_value_is_missing_too() -> None:
    template = Template("By {{ book.author }}")
    assert template.render({"book": {"author": "Ada"}}) == "By Ada"
    for book in ({"author": None}, {}):
        with pytest.raises(TemplateFailure) as caught:
            template.render({"book": book})
        assert caught.value.code == "template_missing_field"


def test_a_default_takes_the_place_of_null() -> None:
    assert (
        Template("{{ a | default('none') }}{% if b is defined %}b{% endif %}").render({"a": None, "b": None}) == "none"
    )


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("{{ a + 1 }}", {"a": "x"}),
        ("{{ 1 // a }}", {"a": 0}),
        ("{{ a.__class__ }}", {"a": ""}),
        ("{{ a | round }}", {"a": []}),
    ],
)
def test_an_error_of_the_template_is_the_rows_failure(text: str, row: dict[str, Any]) -> None:
    with pytest.raises(TemplateFailure) as caught:
        Template(text).render(row)
    assert caught.value.code in {"template_error", "template_missing_field"}


@pytest.mark.parametrize("text", ["{{ a }}", "{% for i in range(1000) %}{{ a }}{% endfor %}"])
def test_a_rendered_text_has_a_limit(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MAX_RENDERED_CHARS", 50)
    with pytest.raises(TemplateFailure, match="over the limit of 50") as caught:
        Template(text).render({"a": "x" * 51})
    assert caught.value.code == "template_error"


def test_a_wrong_template_is_an_error_at_once() -> None:
    for make in (Template, Expression):
        with pytest.raises(ConfigError):
            make("{{ a ")


def test_messages() -> None:
    messages = Conversation([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ q }}"}])
    assert messages.render({"q": "Why?"}) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
    ]
    with pytest.raises(TemplateFailure):
        messages.render({})


def test_an_expression_is_true_or_false() -> None:
    assert Expression("answer | length > 2").holds({"answer": "abc"})
    assert not Expression("answer | length > 2").holds({"answer": "ab"})
    assert Expression("score is not none and score > 1").holds({"score": 2})
    assert not Expression("score is not none and score > 1").holds({"score": None})


@pytest.mark.parametrize(
    ("expr", "row", "code", "words"),
    [
        ("score > 1", {"id": 1}, "template_missing_field", "no column 'score'"),
        ("score", {"id": 1}, "template_missing_field", "no column 'score'"),
        ("score > 1", {"score": None}, "template_missing_field", "column 'score' is null"),
        ("score > 1", {"score": "x"}, "template_error", "TypeError"),
        ("a.b.c", {"a": {}}, "template_missing_field", "has no attribute 'b'"),
    ],
)
def test_an_expression_that_fails(expr: str, row: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(TemplateFailure, match=words) as caught:
        Expression(expr).holds(row)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "text", ["{{ q | tojson(indent=300000000) }}", "{{ '%1000000000d' % 1 }}", "{{ q | center(1000000000) }}"]
)
def test_what_would_take_the_memory_is_the_rows_own_failure(text: str) -> None:
    with pytest.raises(TemplateFailure, match="SecurityError: a value of up to") as failure:
        Template(text).render({"q": ["a"]})
    assert failure.value.code == "template_error"


def test_long_columns_are_not_joined_before_their_length_is_known() -> None:
    with pytest.raises(TemplateFailure, match="over the limit"):
        Template("{{ q }}{{ q }}").render({"q": "x" * (9 << 20)})


def test_an_expression_is_bounded_as_a_template_is() -> None:
    with pytest.raises(TemplateFailure, match="SecurityError"):
        Expression("(q * 1000000000) | length > 3").holds({"q": "ab"})
