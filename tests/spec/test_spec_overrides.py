"""`--set a.b=c`."""

from __future__ import annotations

from typing import Any

import pytest
from spec_support import FILE, HEAD, ONE_STEP, refused

from penstock.spec.load import load_pipeline

TEXT = HEAD + ONE_STEP + "  - filter: {expr: answer, name: kept}\n  - filter: {expr: question}\n"


def value(setting: str, *path: Any) -> Any:
    found: Any = load_pipeline(TEXT, FILE, [setting])
    for key in path:
        found = found[key] if isinstance(key, int) or isinstance(found, dict) else getattr(found, key)
    return found


@pytest.mark.parametrize(
    ("setting", "path", "expected"),
    [
        ("max_dead=3", ("max_dead",), 3),
        ("models.writer.replicas=2", ("models", "writer", "replicas"), 2),
        ("models.writer.engine_options.ms_per_row=2.5", ("models", "writer", "engine_options", "ms_per_row"), 2.5),
        ("steps.generate.max_tokens=64", ("steps", 0, "max_tokens"), 64),
        ("steps.0.generate.max_tokens=64", ("steps", 0, "max_tokens"), 64),
        ("steps.0.max_tokens=64", ("steps", 0, "max_tokens"), 64),
        ("steps.generate.prompt=a: b", ("steps", 0, "prompt"), "a: b"),
        ("steps.generate.stop=[a, b]", ("steps", 0, "stop"), ("a", "b")),
        ("steps.kept.expr=topic", ("steps", 1, "expr"), "topic"),
        ("steps.filter.expr=topic", ("steps", 2, "expr"), "topic"),
        ("source.path=other.jsonl", ("source", "paths"), ("other.jsonl",)),
        ("source=other.jsonl", ("source", "paths"), ("other.jsonl",)),
        ("sink.order=completion", ("sink", "order"), "completion"),
        ("resources.reserve.per_node=2", ("resources", "reserve", "per_node"), 2),
        ("window.rows=10", ("window", "rows"), 10),
    ],
)
def test_a_value_is_replaced(setting: str, path: tuple[Any, ...], expected: Any) -> None:
    if "a: b" in setting:
        setting = "steps.generate.prompt='a: b'"
    assert value(setting, *path) == expected


def test_names_with_dots() -> None:
    text = TEXT.replace("writer", "qwen2.5-7b")
    assert load_pipeline(text, FILE, ["models.qwen2.5-7b.replicas=3"]).models["qwen2.5-7b"].replicas == 3


def test_later_ones_win() -> None:
    assert load_pipeline(TEXT, FILE, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_dead", "expected KEY=VALUE, for instance steps.generate.max_tokens=64"),
        ("=3", "expected KEY=VALUE, for instance steps.generate.max_tokens=64"),
        ("max_dad=3", "unknown key 'max_dad'; did you mean 'max_dead'?"),
        ("steps.generat.n=3", "no step is named 'generat'; did you mean 'generate'?"),
        ("steps.7.n=3", "expected an index below 3, got '7'"),
        ("steps.generate.max_tokns=3", "unknown key 'max_tokns' in generate; did you mean 'max_tokens'?"),
        ("steps.generate.max_tokens=many", "'max_tokens': expected a whole number of at least 1, got 'many'"),
        ("max_dead.x.y=3", "'max_dead.x' is a single value and has no keys"),
        ("seed=[", "not valid YAML"),
        ("seed=!!python/name:os.system", "unsafe tag '!!python/name:os.system'"),
        ("source.path.0.x=3", "'source.path' is a single value and has no keys"),
    ],
)
def test_settings_that_can_not_be_meant(setting: str, message: str) -> None:
    sets = ("max_dead.x=1", setting) if setting.startswith("max_dead.x") else (setting,)
    line = refused(TEXT, sets)[0]
    assert line.startswith(f"--set {setting}: {message}"), line
