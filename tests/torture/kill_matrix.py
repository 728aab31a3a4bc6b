"""SIGKILL at every fault point, in every variant, at one hit after the other, several deaths in a row; then the same
command again, and a comparison byte by byte with a run that nobody has disturbed.

    python tests/torture/kill_matrix.py [--kills 1000] [--jobs 2]

Prints the tally; exit code 1 where a point was never reached, or a run was not what it had to be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from torture_support import (
    CHANGED,
    LIMITED,
    LIMITS,
    TWICE,
    VARIANTS,
    Content,
    change,
    content,
    died,
    differences,
    live,
    no_orphans,
    refused,
    run_again,
    write,
)

from penstock.faults import FAULT_POINTS, HOST_POINTS

DEATHS_IN_A_ROW = 3
MORE_ROUNDS = 6  # for points that were not reached
RETRY, RETRY_TWICE = "retry", "retry-twice"
FINISHED = {RETRY: "phases", RETRY_TWICE: TWICE}  # variants that run dead rows again, and those whose rows they are
REFUSED = "refused, and continued with the source as it was"
ALL = (*VARIANTS, *FINISHED, *LIMITED, *CHANGED)
FAR_HITS = (1, 2, 3, 5, 8, 13, 21, 34, 55)


class Broken(Exception):
    """A run that was killed did not become what it had to be."""


def trial(folder: Path, variant: str, point: str, hit: int, wanted: Content, most: int) -> tuple[int, int]:
    """Die at the point, once or several times, go on, compare; how often it died, and was refused."""
    if variant in FINISHED:
        run_again(folder, folder.parent.parent / FINISHED[variant])
    else:
        write(folder, {**LIMITED, **CHANGED}.get(variant, variant))
    deaths = refusals = 0
    if point in HOST_POINTS:
        status = live(folder, f"{point}:{hit}")  # the host dies, the run goes on
        deaths = sum(1 for _ in folder.glob("died-*"))
    elif variant in LIMITED:
        limits = Random(f"{variant} {point} {hit}")
        while deaths < most and died(live(folder, _setting(point, hit, deaths), limit=limits.choice(LIMITS))):
            deaths += 1
        status = live(folder, limit=limits.choice(LIMITS)) or live(folder)
    elif variant in CHANGED:
        deaths, refusals, status = _with_changes(folder, variant, point, hit, most)
    else:
        while deaths < most and died(status := live(folder, _setting(point, hit, deaths))):
            deaths += 1
        if deaths == most:
            status = live(folder)
    what = f"{variant}, {point}:{hit}, {deaths} deaths"
    if status:
        raise Broken(f"{what}: the run ended with wait status {status}; {(folder / 'stderr.txt').read_text()[-2000:]}")
    no_orphans(folder)
    told = differences(*(_sorted(each) if variant == "swapped" else each for each in (content(folder), wanted)))
    if told:
        raise Broken(f"{what}: {'; '.join(told)}")
    return deaths, refusals


def _setting(point: str, hit: int, deaths: int) -> str:
    return f"{point}:{hit if deaths == 0 else 1}"


def _with_changes(folder: Path, variant: str, point: str, hit: int, most: int) -> tuple[int, int, int]:
    """Between two lives something happens to the source. What was read before is read again, or the run is refused, and
    goes on when the source is brought back: how often it died, was refused, and how it ended."""
    deaths = refusals = 0
    while True:
        setting = _setting(point, hit, deaths) if deaths < most else None
        status = live(folder, setting)
        if refused(folder, status):
            refusals += 1
            (folder / "stderr.txt").unlink()
            change(folder, variant)
            status = live(folder, setting)
        if not died(status):
            return deaths, refusals, status
        deaths += 1
        if (folder / "out" / "run.json").exists():  # else there is no run yet that the source could differ from
            change(folder, variant)


def _sorted(content: Content) -> Content:
    """Rows may have changed places before the first of them was read."""
    lines = sorted(content.data.splitlines(keepends=True))
    dead = sorted((row[1:] for row in content.dead), key=repr)
    return content._replace(data=b"".join(lines), dead=dead)


def work(folder: Path, trials: list[tuple[str, str, int]], wanted: dict[str, Content], tally: Path, most: int) -> None:
    """The trials of one job. A point that is not reached at a hit is not tried at a later one."""
    deaths: Counter[str] = Counter()
    runs, failures, beyond = 0, [], set()
    for number, (variant, point, hit) in enumerate(trials):
        if (variant, point) in beyond:
            continue
        here = folder / str(number)
        try:
            found, refusals = trial(here, variant, point, hit, wanted[variant], most)
            runs += 1
            deaths[point] += found
            deaths[REFUSED] += refusals
            if not found:
                beyond.add((variant, point))
        except (Broken, AssertionError, OSError) as broken:
            failures.append(str(broken))
        shutil.rmtree(here, ignore_errors=True)
    tally.write_text(json.dumps({"deaths": deaths, "runs": runs, "failures": failures}))


def matrix(hit: int) -> list[tuple[str, str, int]]:
    return [(variant, point, hit) for point in FAULT_POINTS for variant in ALL]


def once() -> list[tuple[str, str, int]]:
    """Every point in a variant that reaches it, and those between run and retry."""
    between = [point for point in FAULT_POINTS if point.startswith(("commit.", "move.", "run."))]
    retried = [(variant, point, 1) for variant in FINISHED for point in between]
    differing = [(variant, "commit.done", hit) for variant in (*LIMITED, *CHANGED) for hit in (1, 2)]
    return [*((_variant_of(point), point, 1) for point in FAULT_POINTS), *retried, *differing]


def _variant_of(point: str) -> str:
    """One that reaches the point for certain."""
    if point in ("perform.SleepReplica", "perform.WakeReplica"):
        return "asleep"
    if point in ("commit.carried_written", "perform.AdoptFamily", "perform.KillReplica", "replica.exited"):
        return "phases"
    return "streaming"


def run_all(trials: list[tuple[str, str, int]], jobs: int, most: int) -> tuple[Counter[str], int, list[str]]:
    """All trials, shared out by point: deaths by point, runs compared, failures. most: deaths in a row."""
    needed = {variant for variant, _, _ in trials}
    needed |= {FINISHED[variant] for variant in needed if variant in FINISHED}
    with tempfile.TemporaryDirectory(prefix="penstock-kills-") as name:
        folder = Path(name)
        wanted = {}
        for variant in (each for each in (TWICE, *ALL) if each in needed):
            if variant in FINISHED:
                run_again(folder / variant, folder / FINISHED[variant])
            else:
                write(folder / variant, {**LIMITED, **CHANGED}.get(variant, variant))
            assert live(folder / variant) == 0, (folder / variant / "stderr.txt").read_text()
            wanted[variant] = content(folder / variant)
        if RETRY_TWICE in wanted:
            check_retry_twice(folder / "never", wanted[RETRY_TWICE])
        shares = [[each for each in trials if _share(each, jobs) == job] for job in range(jobs)]
        children = []
        for job, share in enumerate(shares):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    work(folder / f"job-{job}", share, wanted, folder / f"tally-{job}.json", most)
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        ended = [os.waitpid(child, 0)[1] for child in children]
        deaths: Counter[str] = Counter()
        runs, failures = 0, [f"a job ended with {status}" for status in ended if status]
        for job in range(jobs):
            path = folder / f"tally-{job}.json"
            if path.exists():
                found = json.loads(path.read_text())
                deaths.update(found["deaths"])
                runs += found["runs"]
                failures += found["failures"]
    return deaths, runs, failures


def check_retry_twice(folder: Path, retried: Content) -> None:
    """What a retry that nobody disturbs leaves has to be what a run leaves in which no row failed."""
    write(folder, TWICE, fail_on="nothing")
    assert live(folder) == 0, (folder / "stderr.txt").read_text()
    told = differences(retried, content(folder))
    assert not told, f"{RETRY_TWICE}, undisturbed: {'; '.join(told)}"


def _share(each: tuple[str, str, int], jobs: int) -> int:
    return (ALL.index(each[0]) + FAULT_POINTS.index(each[1])) % jobs


def _kills(deaths: Counter[str]) -> int:
    return deaths.total() - deaths[REFUSED]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--kills", type=int, default=1000, help="continue with later hits until so many deaths")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--once", action="store_true", help="each point once, in the first variant that reaches it")
    options.add_argument("--every", type=int, default=1, help="with --once, one of so many trials")
    options.add_argument("--only", choices=ALL, help="one variant; points may be out of its reach")
    asked = options.parse_args()
    began = time.monotonic()
    deaths: Counter[str] = Counter()
    runs, failures, more = 0, [], MORE_ROUNDS
    rounds = [once()[:: asked.every]] if asked.once else [matrix(hit) for hit in FAR_HITS]
    points = [point for point in FAULT_POINTS if any(point == tried for _, tried, _ in rounds[0])]
    if asked.only:
        rounds, more = [[each for each in trials if each[0] == asked.only] for trials in rounds], 0
    while rounds:
        found = run_all(rounds.pop(0), asked.jobs, 1 if asked.once else DEATHS_IN_A_ROW)
        deaths.update(found[0])
        runs += found[1]
        failures += found[2]
        minutes = (time.monotonic() - began) / 60
        print(f"{_kills(deaths)} kills so far, {runs} runs compared, {minutes:.1f} min", flush=True)
        missed = [point for point in points if not (deaths[point] or asked.only)]
        if failures or (_kills(deaths) >= asked.kills and not missed):
            break
        if not rounds and missed and more:  # whether anything is taken back, for one, is a matter of time
            more -= 1
            rounds.append([(variant, point, 1) for point in missed for variant in VARIANTS])
    for point in points:
        print(f"{deaths[point]:6d}  {point}")
    never = [point for point in points if not deaths[point]]
    for failure in failures:
        print("BROKEN:", failure)
    kills, refusals = _kills(deaths), deaths[REFUSED]
    print(f"{kills} kills; {refusals} {REFUSED}")
    print(f"{runs} runs compared, {len(failures)} broken; never reached: {never or 'none'}")
    return 1 if failures or (never and not asked.only) else 0


if __name__ == "__main__":
    sys.exit(main())
