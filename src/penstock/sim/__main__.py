"""`python -m penstock.sim`: replay one seed with its trace, or run many and tally what happened in them."""

from __future__ import annotations

import argparse
import sys
import time

from penstock.sim.run import SeedFailed, run_seed
from penstock.sim.tally import Coverage
from penstock.sim.trace import Trace

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m penstock.sim", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="replay this one")
    which.add_argument("--seeds", help="A:B, run the seeds from A up to B")
    parser.add_argument("--rows", type=int, default=40, help="rows of the source, about")
    parser.add_argument("--mode", choices=("safety", "liveness"), help="default: even seeds liveness, odd ones safety")
    parser.add_argument("--trace", action="store_true", help="print every event and instruction")
    parser.add_argument("--digest", action="store_true", help="print a hash of each seed's trace")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        seeds = range(options.seed, options.seed + 1)
    else:
        first, _, last = options.seeds.partition(":")
        seeds = range(int(first), int(last))
    return _run(seeds, options)


def _run(seeds: range, options: argparse.Namespace) -> int:
    tally, failed, turns = Coverage(), 0, 0
    began_s = time.monotonic()
    for seed in seeds:
        trace = Trace(print if options.trace else None) if options.trace or options.digest else None
        try:
            outcome = run_seed(seed, options.rows, options.mode, tally, trace)
        except SeedFailed as broken:
            failed += 1
            print(broken if len(seeds) == 1 else str(broken).splitlines()[0], file=sys.stderr)
            continue
        turns += outcome.turns
        if options.digest and trace is not None:
            print(seed, trace.digest())
        elif len(seeds) == 1:
            status = outcome.status or "cut"
            print(f"seed {seed}: {status} after {outcome.now:.2f} virtual seconds, {outcome.turns} turns")
    if not options.digest:
        print("\n".join(tally.lines()))
        for name in tally.never() if len(seeds) > 1 else ():
            print(f"   never  {name}")
        print(f"{len(seeds)} seeds, {failed} failed, {turns} turns, {time.monotonic() - began_s:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
