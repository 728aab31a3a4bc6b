"""A pipeline file to a `Pipeline`. All errors of the file are reported together, each with its line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from penstock.errors import ConfigError
from penstock.spec.model import Model
from penstock.spec.overrides import apply_sets
from penstock.spec.pipeline import Pipeline, Resources, Sink, Source, Window, place_of
from penstock.spec.problems import InvalidSpec, KeyPath, Problem, config_error, shown, suggestion
from penstock.spec.steps import LATER_KINDS, STEP_KINDS, Step
from penstock.spec.yaml_text import Document, read_yaml

SIMPLE_KEYS = ("max_dead", "commit_every_s", "seed")  # values that the pipeline checks itself


def load_pipeline(text: str, file: str, sets: Sequence[str] = ()) -> Pipeline:
    """The pipeline that `text` says. `file` is its name for messages; `sets` are `a.b=c` overrides.

    Raises ConfigError, its `where` FILE:LINE; further errors follow in the message, one a line, with their own.
    """
    document = read_yaml(text, file)
    data = document.data
    if data is None and not document.errors:
        raise ConfigError("the file is empty; a pipeline has models, source, steps and sink", where=file)
    if not isinstance(data, dict):
        _raise(document, [Problem((), f"expected a mapping with source, steps and sink, got {shown(data)}")])
    _open_shorthands(document)
    apply_sets(document, sets)
    _open_shorthands(document)  # those that came by an override
    return _Reader(document).pipeline().placed(document.places)


def _open_shorthands(document: Document) -> None:
    """`source: PATH` and `sink: PATH` mean a mapping with a path."""
    for key in ("source", "sink"):
        value = document.data.get(key)
        if isinstance(value, (str, list)):
            document.data[key] = {"path": value}
            document.places[(key, "path")] = document.places[(key,)]


def _raise(document: Document, problems: Sequence[Problem]) -> None:
    entries = [*document.errors]
    for path, message in problems:
        if not any(path[: len(refused)] == refused or path == refused[:-1] for refused in document.refused):
            entries.append((place_of(document.places, path) or document.file, message))
    if entries:
        raise config_error(sorted(entries, key=_line))


def _line(entry: tuple[str, str]) -> tuple[bool, int]:
    """Errors in the order of the file, those of `--set` behind them."""
    number = entry[0].rpartition(":")[2]
    is_line = number.isdecimal()
    return not is_line, int(number) if is_line else 0


class _Reader:
    """Makes each object of the file, and keeps what is wrong with it under its path."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._data: dict[str, Any] = document.data
        self._problems: list[Problem] = []

    def pipeline(self) -> Pipeline:
        parts: dict[str, Any] = {key: self._data[key] for key in SIMPLE_KEYS if self._data.get(key) is not None}
        parts["models"] = self._models()
        parts["steps"] = self._steps()
        for key, kind in (("source", Source), ("sink", Sink), ("resources", Resources), ("window", Window)):
            if key in self._data and self._data[key] is not None:
                parts[key] = self._object((key,), kind, self._data[key])
        self._check_keys()
        broken = [*self._problems, *self._document.errors]
        made = None if broken else self._made((), Pipeline, parts)
        if made is None:
            _raise(self._document, [*self._problems, *self._simple_problems(parts if broken else {})])
        return made  # type: ignore[return-value]

    def _check_keys(self) -> None:
        known = Pipeline.key_names()
        for key in self._data:
            if key not in known:
                self._problems.append(Problem((key,), f"unknown key '{key}'{suggestion(key, known)}"))
        for key in ("source", "steps", "sink"):
            if self._data.get(key) is None and (key,) not in self._document.refused:
                self._problems.append(Problem((), f"the pipeline needs '{key}'"))

    def _simple_problems(self, parts: dict[str, Any]) -> list[Problem]:
        """What is wrong with plain values, reported also when the objects are invalid."""
        try:
            Pipeline(**{key: value for key, value in parts.items() if key in SIMPLE_KEYS})  # type: ignore[call-arg]
        except InvalidSpec as error:
            return [problem for problem in error.problems if problem.path[:1] and problem.path[0] in SIMPLE_KEYS]
        return []

    def _models(self) -> dict[str, Model]:
        entries = self._data.get("models")
        if entries is None:
            return {}
        if not isinstance(entries, dict):
            self._problems.append(Problem(("models",), f"expected a mapping of names to models, got {shown(entries)}"))
            return {}
        made = {}
        for name, body in entries.items():
            path: KeyPath = ("models", name)
            if isinstance(body, dict) and "name" in body:
                self._problems.append(Problem((*path, "name"), "'name': a model's key is its name; leave it out"))
            elif isinstance(body, str):
                self._problems.append(Problem(path, f"expected a mapping, got {shown(body)}; write {{ref: {body}}}"))
            else:
                made[name] = self._object(path, Model, body)
        return made

    def _steps(self) -> list[Step]:
        entries = self._data.get("steps")
        if entries is None:
            return []
        if not isinstance(entries, list):
            self._problems.append(Problem(("steps",), f"expected a list of steps, got {shown(entries)}"))
            return []
        made = [self._step(index, entry) for index, entry in enumerate(entries)]
        return [step for step in made if step is not None]

    def _step(self, index: int, entry: Any) -> Step | None:
        path: KeyPath = ("steps", index)
        if not isinstance(entry, dict) or len(entry) != 1:
            found = f"the keys {', '.join(entry)}" if isinstance(entry, dict) and entry else shown(entry)
            message = f"expected one step such as '- filter: {{expr: ...}}', got {found}"
            self._problems.append(Problem(path, message + _indentation(entry)))
            return None
        ((kind, body),) = entry.items()
        if kind in LATER_KINDS:
            self._problems.append(Problem((*path, kind), f"step '{kind}' is not supported yet"))
        elif kind not in STEP_KINDS:
            hint = suggestion(kind, STEP_KINDS)
            self._problems.append(Problem((*path, kind), f"unknown step '{kind}'{hint}"))
        else:
            return self._object((*path, kind), STEP_KINDS[kind], body)  # type: ignore[no-any-return]
        return None

    def _object(self, path: KeyPath, kind: Callable[..., Any], body: Any) -> Any:
        if isinstance(body, dict):
            return self._made(path, kind, body)
        self._problems.append(Problem(path, f"'{path[-1]}': expected a mapping, got {shown(body)}"))
        return None

    def _made(self, path: KeyPath, kind: Callable[..., Any], values: dict[str, Any]) -> Any:
        try:
            return kind(**values)
        except InvalidSpec as error:
            self._problems += [problem.under(*path) for problem in error.problems]
        return None


def _indentation(entry: Any) -> str:
    """The usual cause of a step with several keys."""
    if isinstance(entry, dict) and len(entry) > 1 and next(iter(entry.values())) is None:
        return f"; indent the keys of '{next(iter(entry))}' below it"
    return ""
