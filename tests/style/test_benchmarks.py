"""`make bench` runs every benchmark as one command, and reads the figures of each."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


def _names() -> list[str]:
    for node in ast.parse((BENCH / "run_all.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "BENCHMARKS":
            return list(ast.literal_eval(node.value))
    raise AssertionError("run_all.py names no benchmarks")


@pytest.mark.parametrize("name", _names())
def test_a_benchmark_gives_its_figures_as_data(name: str) -> None:
    """By `common.main`, which knows --json."""
    module = ast.parse((BENCH / f"{name}.py").read_text())
    imports = [node for node in module.body if isinstance(node, ast.ImportFrom) and node.module == "common"]
    assert "main" in {alias.name for node in imports for alias in node.names}
    (guard,) = (node for node in module.body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))
    assert any(isinstance(node, ast.Call) and ast.unparse(node.func) == "main" for node in ast.walk(guard))


def test_all_benchmarks_are_named() -> None:
    """Every file that measures is one of them."""
    measuring = {path.stem for path in BENCH.glob("*.py") if "def measure(" in path.read_text()}
    assert measuring == set(_names())
