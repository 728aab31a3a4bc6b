"""The template environment: what it refuses, and what it reads from a row."""

from __future__ import annotations

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import SecurityError

from penstock.errors import ConfigError
from penstock.spec.template_meter import METER
from penstock.spec.templates import (
    compile_expression,
    environment,
    expression_problem,
    template_problem,
    undeclared,
    undeclared_in_expression,
)


@pytest.fixture(autouse=True)
def new_rendering() -> None:
    """As data/templates.py begins one for each row; these tests render by themselves."""
    METER.begin()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("plain", set()),
        ("{{ a }} and {{ b.c }}", {"a", "b"}),
        ("{% for x in xs %}{{ x }}{{ loop.index }}{% endfor %}", {"xs"}),
        ("{% set a = b %}{{ a }}", {"b"}),
        ("{{ range(3) | list }}", set()),
        ("{% if a is defined %}{{ a }}{% endif %}", {"a"}),
    ],
)
def test_undeclared(text: str, names: set[str]) -> None:
    assert undeclared(text) == names


def test_undeclared_in_expressions() -> None:
    assert undeclared_in_expression("a | length > b[0] and not 'c'") == {"a", "b"}


def test_compiled_expressions() -> None:
    keep = compile_expression("answer | length > 2")
    assert keep(answer="yes") is True and keep(answer="no") is False
    with pytest.raises(jinja2.UndefinedError):
        keep(other=1)


@pytest.mark.parametrize("text", ["a }} {{ b", "a b", "", "1 +", "a | nofilter", "a is notest"])
def test_bad_expressions(text: str) -> None:
    with pytest.raises(ConfigError, match="not a valid expression"):
        compile_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ x.__init__.__globals__ }}",
        "{{ rows.append(1) }}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ 10 ** 9 * 'a' }}",
        "{{ [0] * 10 ** 9 }}",
        "{{ 2 ** 100000 }}",
        "{{ 'a'.ljust(10 ** 9) }}",
        "{{ 'a' | center(10 ** 9) }}",
        "{{ range(10 ** 9) | list }}",
    ],
)
def test_what_the_sandbox_refuses(text: str) -> None:
    template = environment().from_string(text)
    with pytest.raises((SecurityError, jinja2.UndefinedError, OverflowError)):
        template.render(x=object(), rows=[1])


def test_ordinary_arithmetic_and_padding_work() -> None:
    text = "{{ 'ab' * 3 }} {{ 2 ** 10 }} {{ 2 * 3 }} {{ 'a'.ljust(3) }}| {{ 'a' | center(3) }}|"
    assert environment().from_string(text).render() == "ababab 1024 6 a  |  a |"


@pytest.mark.parametrize("text", ["{{ xs | random }}", "{{ lipsum() }}"])
def test_nothing_is_random(text: str) -> None:
    assert template_problem(text) is not None or undeclared(text) == {"lipsum"}


@pytest.mark.parametrize(
    "text", ["{% include 'a' %}", "{% extends 'a' %}", "{% import 'a' as b %}", "{{ a", "{% if %}"]
)
def test_bad_templates(text: str) -> None:
    with pytest.raises(ConfigError):
        undeclared(text)


def test_the_line_within_a_long_template_is_told() -> None:
    assert (
        template_problem("one\ntwo {{ a | b }}\n") == "not a valid template: No filter named 'b' (line 2 of the text)"
    )


pieces = st.lists(st.sampled_from(["{{", "}}", "{%", "%}", "a", " ", "|", "'", "if", "for x in", "(", ")", "1", "\n"]))


@given(pieces.map("".join) | st.text(max_size=30))
def test_checks_never_raise(text: str) -> None:
    assert template_problem(text) is None or undeclared.__wrapped__ is not None
    if template_problem(text) is None:
        assert isinstance(undeclared(text), frozenset)
    if expression_problem(text) is None:
        assert isinstance(undeclared_in_expression(text), frozenset)
