"""What an engine can't do by its record is refused before anything is loaded, with the place that asks for it."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

import penstock as ps
from penstock import engine_info
from penstock.engine_info import engines
from penstock.engines.base import EngineLoadError
from penstock.errors import ConfigError
from penstock.host.host import make_engine
from penstock.planning import demands
from penstock.planning.preflight import check_feasible
from penstock.protocol.messages import EngineConfig, Setup
from penstock.spec.load import load_pipeline
from penstock.spec.model import Model
from penstock.spec.pipeline import Pipeline
from penstock.spec.served import ServedModels

CHAT = "messages: [{role: user, content: '{{ a }}'}]"


def pipeline(asked: str) -> Pipeline:
    text = (
        "models:\n  m: {ref: 'mock:test'}\nsource: {path: x}\n"
        f"steps:\n  - generate: {{model: m, {asked}, output: b}}\nsink: {{path: out}}\n"
    )
    return load_pipeline(text, "p.yaml")


def mock_takes(monkeypatch: pytest.MonkeyPatch, *payloads: str, honours: tuple[str, ...] = ("sampling",)) -> None:
    info = replace(engines()["mock"], payloads=frozenset(payloads), honours=frozenset(honours))
    records = {**engines(), "mock": info}
    monkeypatch.setattr(engine_info, "engines", lambda: records)


def refused(words: str) -> pytest.RaisesExc[ConfigError]:
    return pytest.raises(ConfigError, match=re.escape(words))


def test_messages_to_an_engine_that_takes_prompts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    mock_takes(monkeypatch, "text")
    check_feasible(pipeline("prompt: '{{ a }}'"))
    with refused(
        "p.yaml:5: 'model': the mock engine of 'm' does not support messages (it supports sampling, text); use"
    ):
        check_feasible(pipeline(CHAT))


def test_a_step_that_samples_on_an_engine_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    mock_takes(monkeypatch, "text", "messages", honours=("embedding",))
    with refused("'model': the mock engine of 'm' does not support sampling"):
        check_feasible(pipeline(CHAT))


@pytest.mark.parametrize("engine", ["vllm", "openai"])
def test_a_model_that_its_engine_plans_and_can_not_run(engine: str) -> None:
    model = Model("a/b", engine=engine, task="embed", base_url="http://localhost:1/v1" if engine == "openai" else None)
    with refused(f"launch.task: 'task': the {engine} engine of 'b' does not support embedding (it supports messages, "):
        check_feasible(ServedModels({"b": model}))


def test_launch_refuses_it_before_it_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demands, "demand_of", lambda *given, **more: pytest.fail("it was planned"))
    with refused("does not support embedding"):
        ps.launch(Model("a/b", engine="vllm", task="embed"))


@pytest.mark.parametrize("engine", ["transformers", "vllm", "openai"])
def test_a_host_refuses_what_no_plan_asks_for(engine: str) -> None:
    setup = Setup("a-0", EngineConfig(engine, "a/b", task="embed"))
    with pytest.raises(
        EngineLoadError, match=f"the {engine} engine does not support models with task: embed"
    ) as raised:
        make_engine(setup, {})
    assert raised.value.code == "bad_model"


def test_an_engine_of_another_interpreter_is_not_guessed() -> None:
    check_feasible(ServedModels({"b": Model("a/b", task="embed", python="/bin/sh")}))


def test_the_engines_that_can_are_named() -> None:
    with refused("use a model on mock"):
        check_feasible(ServedModels({"b": Model("a/b", engine="vllm", task="embed")}))
