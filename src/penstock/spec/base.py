"""The base of all specification objects: frozen, no unknown keys, errors as `ConfigError` with one sentence each."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from penstock.spec.problems import InvalidSpec, KeyPath, Problem, shown, suggestion


class Part(BaseModel):
    """A part of a specification object that is never made by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    parts: ClassVar[dict[str, type[Part]]] = {}  # keys that hold parts, for the suggestions inside them

    @classmethod
    def key_names(cls) -> tuple[str, ...]:
        """The names a file may use."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())


class Spec(Part):
    """A specification object. Creating an invalid one raises `InvalidSpec`, a `ConfigError`."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidSpec(type(self).__name__, _problems(error, type(self))) from None


def _problems(error: ValidationError, cls: type[Part]) -> list[Problem]:
    return [_problem(details, cls) for details in error.errors(include_url=False)]


def _problem(details: Any, cls: type[Part]) -> Problem:
    path: KeyPath = details["loc"]
    last = str(path[-1]) if path else ""
    owner, subject = _owner(path, cls)
    match details["type"]:
        case "extra_forbidden":
            return Problem(path, f"unknown key '{last}' in {subject}{suggestion(last, owner.key_names())}")
        case "missing":
            return Problem(path[:-1], f"{subject} needs '{last}'")
        case "value_error":
            message = str(details["ctx"]["error"])
            return Problem(path, f"'{last}': {message}" if path else message)
        case "model_type" | "model_attributes_type" | "dict_type":
            return Problem(path, f"'{last}': expected a mapping, got {shown(details['input'])}")
        case "tuple_type" | "list_type":
            return Problem(path, f"'{last}': expected a list, got {shown(details['input'])}")
        case _:
            return Problem(path, f"'{last}': {details['msg'][:1].lower()}{details['msg'][1:]}")


def _owner(path: KeyPath, cls: type[Part]) -> tuple[type[Part], str]:
    """The class that the last key of `path` belongs to, and what to call it."""
    for key in path[:-1]:
        if key in cls.parts:
            return cls.parts[str(key)], f"'{key}'"
    return cls, cls.__name__.lower()
