"""Run by test_kills.py in a process of its own: dies at every fault point, takes the run up again, compares.

For each point and each of its first hits, with one phase and with three: a forked child runs the made-up run and
kills itself there; further children take it up and die at the same point while there is a hit; the last one is left
alone. Prints, as JSON, how often each point was died at.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

from ledger_support import Coordinator, assert_complete, open_ledger
from phase_support import PhasedCoordinator, assert_phased_complete, open_phased

from penstock.faults import LEDGER_POINTS, arm
from penstock.ledger import joining as tails

tails.MAX_TAIL = 2  # small parts are joined at every other commit
TOTAL = 90


def one_life(out: Path, setting: str | None, *, phased: bool) -> bool:
    """Run in a child until the end or its death; True when it died at the point."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            arm(setting)
            if phased:
                with open_phased(out) as ledger:
                    PhasedCoordinator(ledger, TOTAL).run(batch_rows=45)
            else:
                with open_ledger(out) as ledger:
                    Coordinator(ledger, TOTAL).run(batch_rows=45)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, f"the run with {setting} failed"
    return False


def die_at(out: Path, point: str, hit: int, most: int, *, phased: bool) -> int:
    """Die at the hit, then again at the first hit on taking the run up, `most` times in all; how often it died."""
    deaths = 0
    while deaths < most and one_life(out, f"{point}:{hit if deaths == 0 else 1}", phased=phased):
        deaths += 1
    one_life(out, None, phased=phased)
    (assert_phased_complete if phased else assert_complete)(out, TOTAL)
    return deaths


def main(folder: Path, hits: int, most: int) -> None:
    tally = {}
    for point in LEDGER_POINTS:
        tally[point] = 0
        for phased in (False, True):
            for hit in range(1, hits + 1):
                out = folder / f"{point}-{hit}"
                deaths = die_at(out, point, hit, most, phased=phased)
                shutil.rmtree(out)
                tally[point] += deaths
                if deaths == 0:
                    break
    print(json.dumps(tally))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
