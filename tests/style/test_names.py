"""A class name means one thing in the whole package."""

from __future__ import annotations

import ast

from style_source import Finding, assert_none, parse, python_files

# Names that two rooms share because they speak of the same thing on two sides of a seam: what a user writes and what
# the wire carries (Message), or reads (Source); and a request where it is sent and where it waits (Request).
SHARED = {"Message", "Request", "Source"}


def test_a_class_name_means_one_thing() -> None:
    defined: dict[str, Finding] = {}
    found = []
    for path in python_files("src/penstock"):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ClassDef) and node.name not in SHARED:
                first = defined.setdefault(node.name, Finding(path, node.lineno, f"class {node.name}"))
                if first.path != path or first.line != node.lineno:
                    found.append(Finding(path, node.lineno, f"class {node.name} is defined in {first.path.name} too"))
    assert_none(
        found, "Name the concept, not the role that it has in its file: a reader meets the name in other rooms."
    )


def test_the_names_that_are_shared_are_few_and_still_shared() -> None:
    names = [
        node.name
        for path in python_files("src/penstock")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ClassDef)
    ]
    assert len(SHARED) <= 6
    assert {name for name in SHARED if names.count(name) > 1} == SHARED, "take the others out of SHARED"
