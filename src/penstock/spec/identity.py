"""Equality of models that share a pool, and of the pipeline of a resumed run.

Answer identity of a model is what changes its answers; everything else is placement. A resume compares the first; two
models share replicas when the first and the placement given for them are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from penstock.redaction import is_secret_name, masked
from penstock.spec.engines import changes_answers, is_default
from penstock.spec.frozen import thawed
from penstock.spec.model import Model
from penstock.spec.pipeline import Pipeline
from penstock.spec.problems import shown
from penstock.spec.served import Workload
from penstock.spec.steps import Step

FORMAT = 1  # of the identity itself; kept with a run
# Fields of a model that say where and how it runs. `replicas`, `weight` and `batch_size` are in neither.
PLACEMENT_FIELDS = (
    "engine",
    "tensor_parallel",
    "pipeline_parallel",
    "max_model_len",
    "base_url",
    "python",
    "pool",
    "progress_timeout_s",
    "goal",
)
# Fields of a step that may change between the two halves of one run.
FREE_STEP_FIELDS = frozenset({"batch_size", "timeout_s", "workers", "columns"})


@dataclass(frozen=True)
class ModelPool:
    """The replicas of one model. `name` is the first of `names` in the file; `replicas` the largest number asked for,
    auto where nobody gave one."""

    name: str
    names: tuple[str, ...]
    model: Model
    replicas: int | Literal["auto"]


def answer_identity(model: Model) -> dict[str, Any]:
    """What changes a model's answers, as plain JSON data."""
    engine = model.resolved_engine
    options = {key: value for key, value in model.engine_options.items() if changes_answers(engine, key)}
    return {
        "ref": model.ref,
        "revision": model.revision,
        "task": model.task,
        "dtype": model.dtype,
        "quantization": model.quantization,
        "engine_options": thawed(_given_options(engine, options)),
    }


def _given_options(engine: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options without those that say what holds anyway: null, and the engine's own default."""
    return {
        key: value
        for key, value in sorted(_without_keys(options).items())
        if value is not None and not is_default(engine, key, value)
    }


def _without_keys(value: Any) -> Any:
    """Options without the keys in them (of `extra_body`, say): they change no answer, and are kept nowhere."""
    if isinstance(value, Mapping):
        return {name: _without_keys(item) for name, item in value.items() if not is_secret_name(name)}
    return [_without_keys(item) for item in value] if isinstance(value, (list, tuple)) else value


def placement(model: Model) -> dict[str, Any]:
    """What is explicitly given about where and how a model runs."""
    given = {name: getattr(model, name) for name in PLACEMENT_FIELDS}
    given["engine"] = model.resolved_engine
    engine = model.resolved_engine
    for key, value in model.engine_options.items():
        if value is not None and (not changes_answers(engine, key) or masked(value, key) != value):
            given[f"engine_options.{key}"] = value
    return {key: value for key, value in given.items() if value not in (None, "auto")}


def pools(workload: Workload) -> tuple[ModelPool, ...]:
    """The pools of its models, in the order of the file."""
    groups: list[tuple[object, list[str]]] = []
    for name, model in workload.models.items():
        key = (answer_identity(model), placement(model))
        names = next((names for other, names in groups if other == key), None)
        if names is None:
            groups.append((key, [name]))
        else:
            names.append(name)
    return tuple(_pool(workload.models, names) for _, names in groups)


def _pool(models: Mapping[str, Model], names: list[str]) -> ModelPool:
    asked = [models[name].replicas for name in names]
    counts = [count for count in asked if isinstance(count, int)]
    return ModelPool(names[0], tuple(names), models[names[0]], max(counts) if counts else "auto")


def pipeline_identity(pipeline: Pipeline) -> dict[str, Any]:
    """What makes this run this run, as plain JSON data that a person can read. The input's own identity (files, sizes)
    stands beside it. Imports functions that are given by name; raises ConfigError where that fails."""
    source, sink = pipeline.source, pipeline.sink
    return {
        "format": FORMAT,
        "source": {"format": source.format, "schema": thawed(source.column_types)},
        "steps": [_step_identity(step, pipeline.models) for step in pipeline.steps],
        "sink": {"format": sink.format, "order": sink.order},
        "seed": pipeline.seed or 0,  # None and 0 are alike, as in run directories of older versions
    }


def _step_identity(step: Step, models: Mapping[str, Model]) -> dict[str, Any]:
    made: dict[str, Any] = {"name": step.name, "kind": step.kind}
    for name, field in type(step).model_fields.items():
        value = getattr(step, name)
        if name in FREE_STEP_FIELDS or name == "name" or value is None:
            continue
        if name == "model":
            value = answer_identity(models[value])
        elif name == "function":
            value = value.digest()
        elif name == "messages":
            value = [{"role": message.role, "content": message.content} for message in value]
        made[field.alias or name] = thawed(value)
    return made


def identity_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, one line each: `steps.generate.prompt: was 'A', is 'B'`."""
    return list(_differences("", _by_name(old), _by_name(new)))


def _by_name(value: Any) -> Any:
    """Lists of named things as mappings, so that a line names the step and not its number."""
    if isinstance(value, Mapping):
        return {str(key): _by_name(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, Mapping) and isinstance(item.get("name"), str) for item in value):
            return {item["name"]: _by_name(item) for item in value}
        return [_by_name(item) for item in value]
    return value


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new or type(old) is not type(new):
            yield f"{path or 'pipeline'}: was {_shown(path, old)}, is {_shown(path, new)}"
        return
    for key in [*old, *(key for key in new if key not in old)]:
        below = f"{path}.{key}" if path else key
        if key not in new:
            yield f"{below}: was {_shown(below, old[key])}, is gone"
        elif key not in old:
            yield f"{below}: is new, {_shown(below, new[key])}"
        else:
            yield from _differences(below, old[key], new[key])
    common = [key for key in old if key in new]
    if path == "steps" and common != [key for key in new if key in old]:
        yield f"steps: their order was {', '.join(old)}, is {', '.join(new)}"


def _shown(path: str, value: Any) -> str:
    return shown(masked(value, path.rpartition(".")[2]))
