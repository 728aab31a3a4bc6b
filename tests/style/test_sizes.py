"""Files and functions stay small. When a limit pinches, find the missing concept rather than cut by line count."""

from __future__ import annotations

import ast
from pathlib import Path

from style_source import PACKAGE, Finding, assert_none, parse, python_files

FILE_LINES = 400
FUNCTION_LINES = 70
CORE_FUNCTION_LINES = 70


def test_no_file_is_long() -> None:
    found = []
    for path in python_files("src", "tests", "bench"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > FILE_LINES:
            found.append(Finding(path, lines, f"{lines} lines, at most {FILE_LINES}"))
    assert_none(found, "A file over the limit holds more than one concept.")


def limit_for(path: Path) -> int:
    return CORE_FUNCTION_LINES if path.is_relative_to(PACKAGE / "core") else FUNCTION_LINES


def test_no_function_is_long() -> None:
    found = []
    for path in python_files("src"):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > limit_for(path):
                    found.append(Finding(path, node.lineno, f"{node.name}: {lines} lines, at most {limit_for(path)}"))
    assert_none(found, "A function over the limit does more than one thing.")
