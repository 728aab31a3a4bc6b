"""A seam has at most five methods (design/0002): what two rooms have to agree on fits on a page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from style_source import PACKAGE, ROOT, Finding, assert_none, parse, python_files

METHODS = 5
ABSTRACT = {"Protocol", "ABC"}


def bases(node: ast.ClassDef) -> set[str]:
    return {base.id for base in node.bases if isinstance(base, ast.Name)}


def public_methods(node: ast.ClassDef) -> set[str]:
    """Properties are data."""
    return {
        item.name
        for item in node.body
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
        and not item.name.startswith("_")
        and not any(isinstance(mark, ast.Name) and mark.id == "property" for mark in item.decorator_list)
    }


def all_methods(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> set[str]:
    """With those that it inherits from a class of the same file."""
    inherited = (all_methods(classes[base], classes) for base in bases(node) if base in classes)
    return public_methods(node).union(*inherited)


def seams() -> Iterator[tuple[str, Finding, int]]:
    """Every protocol and abstract class in src: its name, where it stands, and how many methods it has."""
    for path in python_files("src"):
        classes = {node.name: node for node in ast.walk(parse(path)) if isinstance(node, ast.ClassDef)}
        for name, node in classes.items():
            if bases(node) & ABSTRACT:
                found = sorted(all_methods(node, classes))
                yield name, Finding(path, node.lineno, f"{name} has {len(found)}: {', '.join(found)}"), len(found)


def named() -> dict[str, str]:
    """The classes that design/0002 names -> their files."""
    text = (ROOT / "design" / "0002-seams.md").read_text(encoding="utf-8")
    classes: dict[str, str] = {}
    for file, cell in re.findall(r"^\| [^|]+ \| `([^`]+\.py)` \| ([^|]+) \|", text, re.MULTILINE):
        for part in cell.split(";"):
            other = re.search(r"in `([^`]+\.py)`", part)
            names = re.findall(r"`([A-Z]\w+)`", part)
            classes |= dict.fromkeys(names, other[1] if other else file)
    return classes


def test_no_seam_has_more_than_five_methods() -> None:
    assert_none((finding for _, finding, count in seams() if count > METHODS), f"A seam has at most {METHODS} methods.")


def test_what_the_record_names_is_there() -> None:
    there = {(name, finding.path.relative_to(PACKAGE).as_posix()) for name, finding, _ in seams()}
    assert len(named()) >= 9
    assert set(named().items()) <= there


def test_the_rule_counts_what_is_inherited() -> None:
    tree = ast.parse(
        "class A(Protocol):\n def a(self): ...\nclass B(A, Protocol):\n def b(self): ...\n def _c(self): ..."
    )
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert all_methods(classes["B"], classes) == {"a", "b"}
