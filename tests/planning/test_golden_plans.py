"""Plans of some thirty pairs of models and machines, as a person reads them.

PENSTOCK_GOLDEN=write writes them anew; the difference is what to review.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from planning_cases import CASES, Case, plan
from rich.console import Console

from penstock.report.plan_view import view

GOLDEN = Path(__file__).parents[1] / "golden" / "plans"


def as_text(case: Case) -> str:
    """What was asked, and the plan as `penstock plan` prints it."""
    asked = [f"models    {name}: {{{options}}}" for name, options in case.models.items()]
    asked += [f"nodes     {node}" for node in case.nodes]
    asked += [f"steps     {' -> '.join(case.uses)}"] if case.uses else []
    asked += [f"resources {case.resources}"] if case.resources else []
    console = Console(file=io.StringIO(), width=110, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(view(plan(case), width=110))
    lines = [*asked, "", *captured.get().splitlines()]
    return "\n".join(line.rstrip() for line in lines) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_as_it_was_read(name: str) -> None:
    file, text = GOLDEN / f"{name}.txt", as_text(CASES[name])
    if os.environ.get("PENSTOCK_GOLDEN") == "write":
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text


def test_every_golden_plan_has_its_case() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == sorted(CASES)
