"""A model's fields and what they say together."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.spec.model import Model


@pytest.mark.parametrize(
    ("ref", "name", "revision"),
    [
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B", None),
        ("Qwen/Qwen3-8B@main", "Qwen/Qwen3-8B", "main"),
        ("gpt2@refs/pr/1", "gpt2", "refs/pr/1"),
        ("./models/a@b", "./models/a@b", None),
        ("/models/a@b", "/models/a@b", None),
        ("~/a@b", "~/a@b", None),
        ("mock:a@b", "mock:a@b", None),
        ("a@", "a@", None),
    ],
)
def test_revision_is_split_from_hub_ids_only(ref: str, name: str, revision: str | None) -> None:
    model = Model(ref)
    assert (model.ref, model.revision) == (name, revision)


def test_served_names_are_left_alone() -> None:
    assert Model("@cf/meta/llama@1", base_url="http://h/v1").ref == "@cf/meta/llama@1"


@pytest.mark.parametrize(
    ("options", "engine"),
    [
        ({"ref": "mock:a"}, "mock"),
        ({"ref": "a/b"}, "auto"),
        ({"ref": "a/b", "engine": "vllm"}, "vllm"),
        ({"ref": "a", "base_url": "http://h/v1"}, "openai"),
        ({"ref": "a", "base_url": ["http://h/v1", "http://i/v1"], "engine": "openai"}, "openai"),
    ],
)
def test_resolved_engine(options: dict[str, Any], engine: str) -> None:
    assert Model(**options).resolved_engine == engine


def test_one_url_in_a_list_is_that_url() -> None:
    assert Model("a", base_url=["http://h/v1"]) == Model("a", base_url="http://h/v1")  # type: ignore[arg-type]
    assert Model("a", base_url=("http://h", "http://i")).base_urls == ("http://h", "http://i")
    assert Model("a").base_urls == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ref": ""}, "'ref': expected text, got ''"),
        ({"ref": "mock:"}, "'ref': expected mock:NAME, got no name"),
        ({"ref": "mock:a", "engine": "vllm"}, "'engine': mock:a runs on the mock engine, not on vllm"),
        ({"ref": "a", "engine": "openai"}, "engine openai needs 'base_url'"),
        (
            {"ref": "a", "engine": "vllm", "base_url": "http://h"},
            "'base_url': is an option of engine openai, not of vllm",
        ),
        ({"ref": "mock:a", "base_url": "http://h"}, "'base_url': is an option of engine openai, not of mock"),
        ({"ref": "a", "base_url": "localhost:8000"}, "'base_url': expected a URL such as http://localhost:8000/v1"),
        ({"ref": "a", "base_url": []}, "'base_url': expected a URL or a list of URLs, got []"),
        ({"ref": "a@x", "revision": "y"}, "two revisions: 'x' in ref and 'y' in revision"),
        (
            {"ref": "a", "task": "embed", "engine": "transformers"},
            "'task': engine transformers does not support task embed",
        ),
        ({"ref": "a", "engine": "sentence-transformers"}, "'task': engine sentence-transformers supports only embed"),
        ({"ref": "a", "engine_options": {"x": object()}}, "'engine_options': expected plain data in x, got <object"),
        ({"ref": "a", "progress_timeout_s": 0}, "'progress_timeout_s': expected seconds above 0, got 0"),
        ({"ref": "a", "tensor_paralel": 2}, "unknown key 'tensor_paralel' in model; did you mean 'tensor_parallel'?"),
    ],
)
def test_what_can_not_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Model(**options)
    assert message in str(caught.value)


def test_what_stands_in_the_place_of_a_url_is_told_without_its_key() -> None:
    for wrong in ({"a": "http://h/v1?key=a'S3CRET"}, ["h/v1?key=a'S3CRET"], [["http://h/v1?key=a S3CRET"]]):
        with pytest.raises(ConfigError, match="expected a URL") as caught:
            Model("a", base_url=wrong)  # type: ignore[arg-type]
        assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"slots": 8, "ms_per_row": 2, "ms_per_token": 0.5, "load_ms": 0, "seed": -1},
        {"fail_on": "x", "crash_on": "y", "hang_on": "z", "oom_over_tokens": 10},
        {"eos_median_tokens": 20.0, "eos_sigma": 1},
    ],
)
def test_mock_options(options: dict[str, Any]) -> None:
    assert Model("mock:a", engine_options=options).engine_options == options


def test_reference_twice() -> None:
    with pytest.raises(ConfigError, match="one reference"):
        Model("a", "b")  # type: ignore[misc]
