"""A seed has one trace, whatever the hash seed of the process: no decision rests on the order of a set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def digests(seeds: str, hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "penstock.sim", "--seeds", seeds, "--digest"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("count", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_traces_are_equal_under_other_hash_seeds(count: int) -> None:
    seeds = f"1000:{1000 + count}"
    first = digests(seeds, "1")
    assert len(first.splitlines()) == count
    assert first == digests(seeds, "2")
