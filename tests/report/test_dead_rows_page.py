"""docs/dead-rows.md publishes the codes: it must have them all, in their order, with the words of the code."""

from __future__ import annotations

from pathlib import Path

from penstock.errors import DEAD_CODES
from penstock.report.fixes import FIXES

PAGE = Path(__file__).parents[2] / "docs" / "dead-rows.md"


def test_the_page_has_every_code_with_its_meaning_and_mend() -> None:
    published = [
        line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `") and line.count("`") > 1
    ]
    table = [f"| `{code}` | {meaning} | {FIXES[code]} |" for code, meaning in DEAD_CODES.items()]
    assert [line for line in published if line.split("`")[1] in DEAD_CODES] == table
