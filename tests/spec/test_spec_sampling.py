"""Literals and rendered templates of sampling fields obey one rule."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol.options import Sampling
from penstock.spec.sampling import SAMPLING_RULES
from penstock.spec.steps import Generate

OF_REQUESTS_ONLY = {"structured", "labels"}  # no step sets them yet


def test_the_fields_are_those_of_a_request() -> None:
    assert {*SAMPLING_RULES, "n"} == set(Sampling.__struct_fields__) - OF_REQUESTS_ONLY


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_tokens", " 64\n", 64),
        ("max_tokens", "64.0", 64),
        ("seed", str(2**62 + 1), 2**62 + 1),
        ("temperature", "1", 1.0),
        ("temperature", "1e-1", 0.1),
        ("ignore_eos", "True", True),
        ("stop", "END", ("END",)),
        ("stop", '["a", "b"]', ("a", "b")),
        ("stop", "[x", ("[x",)),
    ],
)
def test_rendered_text_is_parsed(name: str, text: str, value: Any) -> None:
    parsed = SAMPLING_RULES[name].parse(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("max_tokens", "many"),
        ("max_tokens", "1.5"),
        ("max_tokens", "0"),
        ("max_tokens", ""),
        ("max_tokens", "inf"),
        ("temperature", "nan"),
        ("temperature", "-1"),
        ("top_p", "1.1"),
        ("ignore_eos", "yes"),
        ("seed", str(2**63)),
        ("stop", ""),
        ("stop", "[1, 2]"),
    ],
)
def test_rendered_text_that_does_not_fit(name: str, text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        SAMPLING_RULES[name].parse(text)


@given(st.sampled_from(sorted(SAMPLING_RULES)), st.text(max_size=20))
def test_any_text_parses_or_is_refused_with_a_sentence(name: str, text: str) -> None:
    rule = SAMPLING_RULES[name]
    try:
        value = rule.parse(text)
    except ValueError as error:
        assert str(error).startswith("expected")
    else:
        assert rule.check(value) == value


@given(st.sampled_from(["max_tokens", "min_tokens", "top_k", "seed", "logprobs"]), st.integers(0, 20))
def test_a_literal_and_its_text_mean_the_same(name: str, value: int) -> None:
    if value or name != "max_tokens":
        assert SAMPLING_RULES[name].parse(str(value)) == SAMPLING_RULES[name].check(value)


def test_given_fields_only() -> None:
    step = Generate(model="m", prompt="p", output="o", max_tokens="{{ n }}", stop=("a",), temperature=1)
    assert dict(step.sampling) == {"max_tokens": "{{ n }}", "temperature": 1.0, "stop": ("a",), "ignore_eos": False}
