"""`engine: auto`: the engine that a plan is made for is the one that is started, whatever is installed."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import penstock
from penstock import engine_info
from penstock.engine_info import MODEL_TASKS, EngineInfo, info_of, model_engines
from penstock.errors import ConfigError, MissingDependency
from penstock.planner.cluster import CpuDomain, NodeFacts
from penstock.planning.demands import check_launchable, engine_for
from penstock.planning.plan import plan_on_nodes
from penstock.planning.run_plan import plan
from penstock.spec.load import load_pipeline
from penstock.spec.model import Model
from penstock.spec.pipeline import Pipeline

FOLDER = Path(penstock.__file__).parent / "models" / "docwriter"
STEPS = {
    "generate": "generate: {model: m, prompt: '{{ a }}', output: b}",
    "embed": "embed: {model: m, text: '{{ a }}', output: b}",
}
NODES = {
    "cpu": NodeFacts(name="n", cpus=4, domains=(CpuDomain((0, 1, 2, 3), 16 * 10**9),)),
    "gpu": NodeFacts(name="n", devices=2, device_memory_bytes=24 * 10**9, link="pcie", cpus=4),
}
LOCAL = [info.name for info in model_engines() if info.preference]
INSTALLED = [set(some) for size in range(len(LOCAL) + 1) for some in itertools.combinations(LOCAL, size)]


def pipeline(task: str, **options: str) -> Pipeline:
    given = "".join(f", {name}: {value}" for name, value in options.items())
    text = (
        f"models: {{m: {{ref: '{FOLDER}', engine: auto, task: {task}{given}}}}}\n"
        f"source: {{path: x}}\nsteps: [{{{STEPS[task]}}}]\nsink: {{path: out}}\n"
    )
    return load_pipeline(text, "test.yaml")


def install(monkeypatch: pytest.MonkeyPatch, names: set[str]) -> None:
    def is_installed(info: EngineInfo) -> bool:
        return info.name in names or not (info.modules or info.devices)

    monkeypatch.setattr(engine_info, "is_installed", is_installed)


@pytest.mark.parametrize("task", MODEL_TASKS)
@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("installed", INSTALLED, ids=lambda names: "+".join(sorted(names)) or "none")
def test_the_planned_engine_is_the_launched_one(
    task: str, node: str, installed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, installed)
    asked = pipeline(task)
    able = {info.name for info in model_engines() if task in info.tasks}
    if not able & installed:
        # Of the installable engines, none runs embedding models yet.
        error, words = {
            "generate": (MissingDependency, "no engine is installed that can run"),
            "embed": (ConfigError, "this version can't run yet"),
        }[task]
        with pytest.raises(error, match=words):
            plan(asked, [NODES[node]])
        return
    planned = plan_on_nodes(asked, [NODES[node]], here=True).models["m"].engine
    launched = {replica.config.engine for replica in plan(asked, [NODES[node]]).replicas}
    assert launched == {planned}
    assert planned in able & installed


@pytest.mark.parametrize("engine", [info.name for info in model_engines()])
@pytest.mark.parametrize("task", MODEL_TASKS)
def test_an_engine_that_is_named_is_taken(engine: str, task: str) -> None:
    info = info_of(engine)
    if task not in info.tasks:
        return
    ref = f"{info.ref_prefix}m" if info.ref_prefix else "owner/m"
    model = Model(ref, engine=engine, task=task, base_url="http://localhost:1/v1" if info.remote else None)
    assert engine_for(model, here=True) is engine_for(model, here=False) is info


def test_the_preferred_engine_is_planned_where_none_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, set())
    assert engine_for(Model("a/b"), here=True).name == "vllm"
    assert engine_for(Model("a/b", task="embed"), here=True).name == "sentence-transformers"


def test_the_preferred_of_those_installed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {"transformers", "vllm"})
    assert engine_for(Model("a/b"), here=True).name == "vllm"
    assert engine_for(Model("a/b", task="embed"), here=True).name == "vllm"


def test_another_interpreter_has_its_engine_named() -> None:
    with pytest.raises(ConfigError, match="set its engine"):
        check_launchable(Model("a/b", python="/opt/venv/bin/python"))


def test_an_engine_without_adapter_is_refused() -> None:
    with pytest.raises(ConfigError, match="this version can't run yet"):
        check_launchable(Model("a/b", engine="sentence-transformers", task="embed"))
