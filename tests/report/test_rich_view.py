from __future__ import annotations

import io

import pytest
from report_samples import replica, running
from rich.console import Console

from penstock.report.facts import PoolFacts, RunFacts
from penstock.report.rich_view import view


def drawn(facts: RunFacts, width: int, height: int = 40) -> list[str]:
    """The view without colour, as a person without colours sees it."""
    out = io.StringIO()
    Console(file=out, width=width, height=height, color_system=None).print(view(facts, width=width, height=height))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_wide() -> None:
    assert drawn(running(), 100) == [
        "penstock  out/answers                                                                 running 1m 24s",
        "━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━                              2,448 of 4,000 rows (61.2%)",
        "812 rows/s · 12,345 tokens/s · about 52s left · 3 dead · 5 filtered · 512 rows in memory",
        "",
        "writer = editor · 120 requests waiting",
        "  replica   busy                                  in flight  queued       rows   memory  device",
        "  writer-0  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╸   98%      16/16       4      1,222   1.2 GB     93%",
        "  writer-1  ━━━━━━━━━━━━━━━━━━               61%      16/16       4      1,222   1.2 GB     93%",
        "",
        "judge · 0 requests waiting",
        "  judge-0: starting (loading weights, 3 of 7 files)",
    ]


def test_narrow() -> None:
    assert drawn(running(), 40) == [
        "penstock  out/answers     running 1m 24s",
        "2,448 of 4,000 rows (61.2%)",
        "812 rows/s · 12,345 tokens/s",
        "about 52s left · 3 dead · 5 filtered",
        "512 rows in memory",
        "",
        "writer = editor · 120 requests waiting",
        "  replica   busy",
        "  writer-0   98%",
        "  writer-1   61%",
        "",
        "judge · 0 requests waiting",
        "  judge-0: starting (loading weights, 3…",
    ]


@pytest.mark.parametrize("width", [20, 33, 47, 48, 58, 66, 79, 86, 100, 200])
def test_no_line_is_wider_than_the_terminal_or_wrapped(width: int) -> None:
    lines = drawn(running(reason="disk full: " + "x" * 300, warnings=["late " * 80]), width)
    assert max(map(len, lines)) <= width
    assert sum("writer-0" in line for line in lines) == 1


@pytest.mark.parametrize("height", [10, 24, 50])
def test_many_replicas_fit_the_height_and_the_idlest_are_shown(height: int) -> None:
    replicas = [replica(i, busy_recent=1 - i / 64) for i in range(64)]
    lines = drawn(running(pools=[PoolFacts("writer", ["writer"], replicas=replicas)]), 100, height)
    assert len(lines) <= height
    assert any("writer-63" in line for line in lines)
    assert any(line.lstrip().startswith("and ") and "busier than these" in line for line in lines)


def test_replicas_that_wait_alike_are_told_together() -> None:
    replicas = [replica(i, state="starting", reason="loading") for i in range(8)]
    lines = drawn(running(pools=[PoolFacts("writer", ["writer"], replicas=replicas)]), 80)
    assert "  writer-0, writer-1 and 6 more: starting (loading)" in lines


def test_unknown_total() -> None:
    assert "2,448 of 2,960+ rows" in drawn(running(total_rows=None), 80)
