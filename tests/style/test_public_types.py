"""Every type that a public signature names can be had from `penstock` itself."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import penstock
from penstock import errors

PUBLIC: dict[str, Any] = {name: getattr(penstock, name) for name in penstock.__all__ if not name.startswith("__")}
# Whoever writes a pipeline knows these; the others are what they return, hold or raise.
FEW = 25


def classes_in(hint: Any) -> Iterator[type]:
    """The classes that an annotation names, however deep: `list[A | None]` names A."""
    if isinstance(hint, type) and not typing.get_args(hint):
        yield hint
    for part in hint if isinstance(hint, list) else typing.get_args(hint):
        yield from classes_in(part)


def hints(thing: Any) -> dict[str, Any]:
    return typing.get_type_hints(thing, localns=PUBLIC)


def annotations(thing: Any) -> Iterator[tuple[str, Any]]:
    """Of a function: its parameters and what it returns. Of a class: its fields and those of its public methods."""
    if not inspect.isclass(thing):
        yield from hints(thing).items() if inspect.isfunction(thing) else ()
        return
    raw = {name: text for base in thing.__mro__ for name, text in getattr(base, "__annotations__", {}).items()}
    for name, hint in hints(thing).items():
        if not name.startswith("_") and not str(raw.get(name, "")).startswith("ClassVar"):
            yield name, hint
    for name, member in inspect.getmembers(thing):
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(function) and function.__module__.startswith("penstock"):
            yield from ((f"{name}: {parameter}", hint) for parameter, hint in hints(function).items())


@pytest.mark.parametrize("name", PUBLIC)
def test_every_type_of_a_public_signature_is_exported(name: str) -> None:
    exported = set(map(id, PUBLIC.values()))
    missing = {
        f"{place} needs {found.__module__}.{found.__qualname__}"
        for place, hint in annotations(PUBLIC[name])
        for found in classes_in(hint)
        if found.__module__.startswith("penstock") and id(found) not in exported
    }
    assert not missing, f"{name}: {sorted(missing)}"


def test_every_error_is_exported() -> None:
    raised = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert raised <= set(PUBLIC)


def test_few_names_have_to_be_known() -> None:
    named = {id(found) for thing in PUBLIC.values() for _, hint in annotations(thing) for found in classes_in(hint)}
    learned = [
        name
        for name, thing in PUBLIC.items()
        if id(thing) not in named and not (inspect.isclass(thing) and issubclass(thing, Exception))
    ]
    assert len(learned) <= FEW, learned


def test_the_rule_sees_a_type_inside_another() -> None:
    assert list(classes_in(hints(RunLike)["parts"])) == [str, penstock.RunFacts, type(None)]


class RunLike:
    parts: dict[str, penstock.RunFacts | None]


@pytest.mark.parametrize("name", ["generate", "agenerate"])
def test_what_generate_returns_is_typed_by_what_becomes_of_errors(name: str) -> None:
    found = {
        str(inspect.signature(each).parameters["errors"].annotation): str(inspect.signature(each).return_annotation)
        for each in typing.get_overloads(getattr(penstock.LaunchedPool, name))
    }
    assert found == {
        "Literal['raise']": "list[Generation]",
        "Literal['return']": "list[Generation | GenerationError]",
    }
