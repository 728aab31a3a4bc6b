"""A seed has one trace, whatever the hash seed of the process: no decision rests on the order of a set."""

from __future__ import annotations

import os
import subprocess
import sys

SEEDS = "1000:1020"


def digests(hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "penstock.sim", "--seeds", SEEDS, "--digest"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_traces_are_equal_under_other_hash_seeds() -> None:
    first = digests("1")
    assert len(first.splitlines()) == 20
    assert first == digests("2")
