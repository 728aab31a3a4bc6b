"""Bugs planted in the core, one at a time: the checkers catch each of them.

A checker that lets a planted bug pass is worth nothing, however many seeds it has seen. A test begins with the seed
that is recorded for its bug in planted_seeds.json, and searches on from the first where decisions have changed since.
`planted_seeds.py` searches for all bugs from seed 0, and counts; with --record it writes the seeds down.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from penstock.sim.run import SeedFailed, run_seed

MOST_SEEDS = 500
RECORD = Path(__file__).with_name("planted_seeds.json")
RECORDED: dict[str, int] = json.loads(RECORD.read_text())

Plant = Callable[[pytest.MonkeyPatch], None]


def planted() -> tuple[dict[str, Plant], Callable[[Plant], Plant]]:
    """Bugs by name, and the decorator that adds one."""
    bugs: dict[str, Plant] = {}

    def plant(bug: Plant) -> Plant:
        bugs[bug.__name__] = bug
        return bug

    return bugs, plant


def first_that_fails(seeds: Iterable[int]) -> int | None:
    """The first of these seeds that fails now."""
    for seed in seeds:
        try:
            run_seed(seed)
        except SeedFailed as failed:
            assert f"--seed {seed}" in str(failed)
            return seed
    return None


def caught(name: str) -> None:
    """Fail unless the recorded seed, or one of the first, fails now."""
    recorded = [RECORDED[name]] if name in RECORDED else []
    if first_that_fails([*recorded, *range(MOST_SEEDS)]) is None:
        pytest.fail(f"{name} was not caught by seed {recorded} or the first {MOST_SEEDS}; planted_seeds.py searches on")
