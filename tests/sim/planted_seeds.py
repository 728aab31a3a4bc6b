"""How many seeds it takes until each planted bug is caught: at least 95% within 2,000.

With --record the cheapest of the first seeds that catch a bug is written down for the tests.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

import pytest
from planting import RECORD, Plant, first_that_fails

SHARE = 0.95
COMPARED = 6  # catching seeds, of which the cheapest is recorded
SEARCH_S = 8.0  # for further ones, once there is one


def all_planted() -> dict[str, Plant]:
    bugs: dict[str, Plant] = {}
    for path in sorted(Path(__file__).parent.glob("test_planted_*.py")):
        more: dict[str, Plant] = importlib.import_module(path.stem).PLANTED
        assert not bugs.keys() & more.keys(), "two planted bugs of one name"
        bugs |= more
    return bugs


def catching(most: int, limit_s: float) -> list[tuple[float, int]]:
    """(CPU seconds, seed) of seeds that fail now, from the first on."""
    found: list[tuple[float, int]] = []
    until_s = time.monotonic() + limit_s
    for seed in range(most):
        begun_s = time.process_time()
        if first_that_fails([seed]) is not None:
            found.append((time.process_time() - begun_s, seed))
        if found and (len(found) == COMPARED or time.monotonic() > until_s):
            break
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--record", action="store_true")
    asked = parser.parse_args()
    bugs, caught, recorded = all_planted(), 0, {}
    for name, plant in bugs.items():
        with pytest.MonkeyPatch.context() as patch:
            plant(patch)
            found = catching(asked.seeds, SEARCH_S if asked.record else 0.0)
        caught += bool(found)
        if found:
            recorded[name] = min(found)[1]
        print(f"{name:60} {'seed ' + str(found[0][1]) if found else 'NOT CAUGHT'}", flush=True)
    print(f"{caught} of {len(bugs)} planted bugs caught within {asked.seeds} seeds")
    if asked.record:
        RECORD.write_text(json.dumps(dict(sorted(recorded.items())), indent=1) + "\n")
    return 0 if caught >= SHARE * len(bugs) else 1


if __name__ == "__main__":
    sys.exit(main())
