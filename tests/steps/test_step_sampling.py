from __future__ import annotations

from typing import Any

import pytest

from penstock.data.templates import TemplateFailure
from penstock.errors import ConfigError
from penstock.protocol.options import Sampling
from penstock.steps import sampling as step_sampling
from penstock.steps.sampling import SamplingTemplate, literal_sampling


def test_equal_samplings_are_one_object() -> None:
    fixed = SamplingTemplate({"max_tokens": 5, "stop": ["a"], "temperature": None}, n=2)
    assert fixed.render({}) is fixed.render({"x": 1})
    assert (fixed.render({}).stop, fixed.render({}).n, fixed.render({}).temperature) == (("a",), 2, None)
    rendered = SamplingTemplate({"max_tokens": "{{ length }}", "temperature": 0.5, "stop": "{{ stop }}"})
    first = rendered.render({"length": 3, "stop": "x"})
    assert (first.max_tokens, first.temperature, first.stop) == (3, 0.5, ("x",))
    assert rendered.render({"length": "3", "stop": "x"}) is first
    assert rendered.render({"length": 4, "stop": "x"}).max_tokens == 4


def test_kept_samplings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_sampling, "_KEPT_SAMPLINGS", 3)
    rendered = SamplingTemplate({"max_tokens": "{{ n }}"})
    assert [rendered.render({"n": n}).max_tokens for n in range(1, 9)] == list(range(1, 9))
    assert len(rendered._kept) <= 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", "many"),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", "nan"),
        ("temperature", -1),
        ("temperature", "inf"),
        ("top_p", 2),
        ("ignore_eos", "maybe"),
        ("seed", 2**63),
    ],
)
def test_a_sampling_field_that_can_not_be_meant(field: str, value: Any) -> None:
    with pytest.raises(TemplateFailure, match=field) as caught:
        SamplingTemplate({field: "{{ value }}"}).render({"value": value})
    assert caught.value.code == "bad_sampling"
    with pytest.raises(ConfigError, match=field):
        SamplingTemplate({field: value})


def test_fields_are_checked_together_and_null_is_missing() -> None:
    sampling = SamplingTemplate({"min_tokens": 10, "max_tokens": "{{ n }}"})
    with pytest.raises(TemplateFailure, match="min_tokens is 10, above max_tokens 9"):
        sampling.render({"n": 9})
    with pytest.raises(TemplateFailure) as caught:
        sampling.render({"n": None})
    assert caught.value.code == "template_missing_field"


def test_without_a_row_a_text_is_itself() -> None:
    assert literal_sampling({"stop": "{{ user }}", "seed": None}, 2) == Sampling(stop=("{{ user }}",), n=2)


@pytest.mark.parametrize(
    ("fields", "n", "says"),
    [
        ({}, "2", "'n': expected a whole number of at least 1 and of at most 16384, got '2'"),
        ({}, 16_385, "at most 16384, got 16385"),
        ({}, None, "got nothing"),
        ({}, True, "got True"),
        ({"max_tokens": "{{ x }}"}, 1, "'max_tokens': expected a whole number"),
        ({"max_tokns": 3}, 1, "unknown sampling field 'max_tokns'; did you mean 'max_tokens'"),
        ({"response_format": {}}, 1, "unknown sampling field 'response_format' .known: n, max_tokens, "),
        ({"min_tokens": 5, "max_tokens": 3}, 1, "min_tokens is 5, above max_tokens 3"),
        ({"stop": "\ud800"}, 1, "'stop': expected valid Unicode"),
    ],
    ids=str,
)
def test_a_literal_that_can_not_be_meant(fields: dict[str, Any], n: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        literal_sampling(fields, n)
    if not any("{{" in str(value) for value in fields.values()):
        with pytest.raises(ConfigError, match=says):
            SamplingTemplate(fields, n)
