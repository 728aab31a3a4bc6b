"""Bugs planted in the core, one at a time: the checkers catch each of them within a few seeds.

A checker that lets a planted bug pass is worth nothing, however many seeds it has seen.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from penstock.sim.run import SeedFailed, run_seed

MOST_SEEDS = 500

Plant = Callable[[pytest.MonkeyPatch], None]


def planted() -> tuple[dict[str, Plant], Callable[[Plant], Plant]]:
    """Bugs by name, and the decorator that adds one."""
    bugs: dict[str, Plant] = {}

    def plant(bug: Plant) -> Plant:
        bugs[bug.__name__] = bug
        return bug

    return bugs, plant


def caught(name: str, first: int = 0) -> None:
    """Fail unless one of the seeds from `first` on fails now."""
    for seed in range(first, first + MOST_SEEDS):
        try:
            run_seed(seed)
        except SeedFailed as failed:
            assert f"--seed {seed}" in str(failed)
            return
    pytest.fail(f"{name} was not caught within {MOST_SEEDS} seeds")
