"""What is known of an engine stands in its record (engines/FAMILY/info.py): elsewhere no code asks for its name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from style_source import PACKAGE, Finding, assert_none, parse, python_files

from penstock.engine_info import engines

# The demo's own model and the test kit choose an engine; that is no fact about it.
CHOOSE = {"cli/demo.py", "testing"}
# The name of an executor, a step's kind of pool, a field of Model: the engine "python" is named by no model.
OTHER_MEANINGS = {"python"}
OWN_FOLDER = "engines"


def literals(tree: ast.Module, names: set[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names:
            yield node.lineno, node.value


def is_exempt(path: Path) -> bool:
    place = path.relative_to(PACKAGE).as_posix()
    return place in CHOOSE or place.split("/")[0] in {*CHOOSE, OWN_FOLDER}


def test_only_records_name_engines() -> None:
    names = set(engines()) - OTHER_MEANINGS
    found = [
        Finding(path, line, f"names the engine {name!r}")
        for path in python_files("src")
        if not is_exempt(path)
        for line, name in literals(parse(path), names)
    ]
    assert_none(found, "Ask the engine's record (penstock.engine_info) for what decides, and let the record say it.")


def test_each_engine_is_named_by_its_own_family_only() -> None:
    found = []
    for path in python_files("src/penstock/engines"):
        family = path.relative_to(PACKAGE / "engines").parts[0].replace("_", "-")
        others = set(engines()) - {family} - OTHER_MEANINGS
        found += [
            Finding(path, line, f"names the engine {name!r}")
            for line, name in literals(parse(path), others)
            if path.stem != "info"
        ]
    assert_none(found, "An engine knows nothing of the others.")


def test_the_rule_sees_a_name() -> None:
    tree = ast.parse("if engine == 'vllm':\n    pass")
    assert list(literals(tree, {"vllm"})) == [(1, "vllm")]
