"""Checks that a pipeline can run, before a model is loaded; errors have their location in the pipeline file."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path

from penstock.engine_info import OPTIONS_OF_TASK, info_of, model_engines
from penstock.engines import registry
from penstock.errors import ConfigError
from penstock.planning.demands import engine_for
from penstock.spec.engines import AUTO
from penstock.spec.graph import StepNode, step_path
from penstock.spec.model import Model
from penstock.spec.problems import KeyPath, Problem, config_error
from penstock.spec.served import Workload
from penstock.spec.steps import PythonStep
from penstock.steps.registry import logic_for

MAX_PROCESSES = 1000  # of one pool on one machine: each is two processes and a share of the coordinator's time
_DESCRIPTIONS = ("config.json", "params.json")  # one of them is in every model's folder


def check_feasible(workload: Workload) -> None:
    """Raises ConfigError with FILE:LINE of each thing that this machine, or this version, can't do."""
    problems = [problem for name, model in workload.models.items() for problem in _of_model(name, model)]
    problems += [problem for node in workload.order() for problem in _of_step(node)]
    problems += list(_beyond_the_engines(workload))
    if problems:
        raise config_error((workload.place(problem.path), problem.message) for problem in problems)


def _of_model(name: str, model: Model) -> Iterator[Problem]:
    at: KeyPath = ("models", name)
    yield from _too_many((*at, "replicas"), model.replicas)
    if model.python is not None and not os.access(model.python, os.X_OK):
        message = f"'python': no such interpreter '{model.python}'; give its path, for instance VENV/bin/python"
        yield Problem((*at, "python"), message)
    info = None if model.resolved_engine == AUTO else info_of(model.resolved_engine)
    if info is not None and (refusal := registry.refusal(info.name, model.engine_options, model.base_urls)):
        key = "base_url" if refusal.startswith("base_url") else "engine_options"
        yield Problem((*at, key), refusal)
    if info is None or info.devices:
        problem = _folder_problem(model)
        if problem:
            yield Problem((*at, "ref"), f"'ref': {problem}")


def _beyond_the_engines(workload: Workload) -> Iterator[Problem]:
    """What engines can't do by their records, and would refuse with every request. A model that no step uses is loaded
    for its task."""
    asked: list[tuple[KeyPath, str, frozenset[str]]] = [
        (step_path(node.index, node.step, "model"), node.step.model_name, node.step.asks())
        for node in workload.order()
        if node.step.model_name is not None
    ]
    if not workload.steps:
        asked = [
            (("models", name, "task"), name, frozenset({OPTIONS_OF_TASK[model.task]}))
            for name, model in workload.models.items()
        ]
    for path, name, asks in asked:
        model = workload.models[name]
        if model.python is not None and model.resolved_engine == AUTO:
            continue  # `check_launchable` asks which engine it is
        info = engine_for(model, here=True)
        can = info.payloads | info.honours
        if info.adapter and not asks <= can:
            able = [each.name for each in model_engines() if each.adapter and asks <= each.payloads | each.honours]
            fix = f"use a model on {' or '.join(able)}" if able else "no engine of this version can"
            message = (
                f"'{path[-1]}': the {info.name} engine of '{name}' does not support {', '.join(sorted(asks - can))} "
                f"(it supports {', '.join(sorted(can))}); {fix}"
            )
            yield Problem(path, message)


def _folder_problem(model: Model) -> str | None:
    path = Path(model.ref).expanduser()
    if os.path.isdir(path):
        if any(os.path.exists(path / name) for name in _DESCRIPTIONS):
            return None
        return f"'{model.ref}' is not a model folder: config.json is missing"
    if os.path.exists(path) or not model.ref.startswith(("/", "./", "../", "~")):
        return None
    return f"no such folder '{model.ref}' (relative to {os.getcwd()}); give a model's folder or a hub id OWNER/NAME"


def _of_step(node: StepNode) -> Iterator[Problem]:
    step = node.step
    if isinstance(step, PythonStep) and step.function is not None:
        yield from _too_many(step_path(node.index, step, "workers"), step.workers)
        at = step_path(node.index, step, "function")
        try:
            function = step.function.resolve() if step.function.version is None else None
        except ConfigError as error:
            yield Problem(at, f"'function': {error.message}")
            return
        if inspect.iscoroutinefunction(function):
            message = (
                f"'function': '{step.function.name}' is async; steps call synchronous functions (wrap it "
                "in asyncio.run)"
            )
            yield Problem(at, message)
    try:
        logic_for(step)
    except ConfigError as error:
        yield Problem(step_path(node.index, step), error.message)


def _too_many(at: KeyPath, count: int | str) -> Iterator[Problem]:
    if isinstance(count, int) and count > MAX_PROCESSES:
        yield Problem(at, f"'{at[-1]}': {count:,} processes on one machine; the limit is {MAX_PROCESSES:,}")
