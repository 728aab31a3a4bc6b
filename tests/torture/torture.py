"""Torture: small runs whose processes are killed, stopped, told to end and starved at random, life after life; then the
same command until it is done, and a comparison byte by byte with a run that nobody has disturbed.

    python tests/torture/torture.py [--minutes 30] [--seed 0] [--jobs 2]

Prints the tally of what was done to how many runs, and what came of it; exit code 1 where anything was lost or twice.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from torture_support import (
    PROGRESS_TIMEOUT_S,
    VARIANTS,
    Content,
    begin,
    content,
    differences,
    leftovers,
    live,
    no_orphans,
    processes,
    write,
)

from penstock.errors import PenstockError
from penstock.faults import FAULT_POINTS
from penstock.ledger.files import Files
from penstock.ledger.layout import Layout
from penstock.ledger.manifest import Manifest

LIVES = 4  # that are disturbed; then the same command is left alone until it is done
UNDISTURBED_LIVES = 3
LIFE_LIMIT_S = 240.0  # far more than a life takes: one that takes longer hangs
FENCED_LIMIT_S = 120.0  # for one that was taken over from to find that out: it looks every 10 s, or when it commits
DEAF_S = 2.0  # in which a process may not have begun to listen to signals
SLOW = 8  # times slower than in the kill matrix, so that there is a middle to strike in


class Broken(Exception):
    """A run did not become what it had to be."""


class Life:
    """One life of the coordinator, while it is being disturbed."""

    def __init__(self, folder: Path, rng: Random, tally: Counter[str]) -> None:
        self.folder, self.rng, self.tally = folder, rng, tally
        self.begun = time.monotonic()
        self.pid = begin(folder)
        self.status: int | None = None

    def over(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
        return self.status is not None

    def wait(self, limit_s: float, what: str = "a life") -> int:
        until = time.monotonic() + limit_s
        while not self.over():
            if time.monotonic() > until:
                self.signal(signal.SIGKILL)
                raise Broken(f"{what} took more than {limit_s:.0f} s")
            time.sleep(0.01)
        assert self.status is not None
        return self.status

    def signal(self, number: int) -> None:
        if not self.over():
            os.kill(self.pid, number)

    def deaf(self) -> tuple[int, ...]:
        """How SIGTERM ends a process that has hardly begun, and does not listen yet."""
        return (int(signal.SIGTERM),) if time.monotonic() - self.begun < DEAF_S else ()

    def host(self, what: bytes = b"--fd") -> int | None:
        found = processes(self.folder, what)
        return self.rng.choice(found) if found else None


# ---------------------------------------------------------------- what is done to a life


def kill_coordinator(life: Life) -> None:
    life.signal(signal.SIGKILL)


def end_in_good_order(life: Life) -> None:
    life.signal(signal.SIGTERM)
    if life.wait(LIFE_LIMIT_S, "a clean stop") not in (0, 75 << 8, *life.deaf()):
        raise Broken(f"SIGTERM ended the run with wait status {life.status}")


def end_at_once(life: Life) -> None:
    life.signal(signal.SIGTERM)
    time.sleep(life.rng.random() * 0.05)
    life.signal(signal.SIGTERM)
    if life.wait(LIFE_LIMIT_S, "a stop at once") not in (0, 75 << 8, 130 << 8, *life.deaf()):
        raise Broken(f"SIGTERM twice ended the run with wait status {life.status}")


def suspend_and_take_over(life: Life) -> None:
    """The suspended one wakes in the middle of its successor's work, or after it; it has to find out and end."""
    life.signal(signal.SIGSTOP)
    successor = begin(life.folder, takeover=True)
    if life.rng.random() < 0.5:
        time.sleep(life.rng.random())
        life.signal(signal.SIGCONT)
    status = os.waitpid(successor, 0)[1]
    life.signal(signal.SIGCONT)
    if life.wait(FENCED_LIMIT_S, "one that was taken over from") == 0 and status == 0:
        life.tally["it had finished before the takeover"] += 1
    elif status and ("RunOwned" in _errors(life.folder) or "Fenced" in _errors(life.folder)):
        life.tally["it claimed the run only when it woke, and won"] += 1  # it was stopped before its own claim
    elif status:
        raise Broken(f"the successor ended with wait status {status}: {_errors(life.folder)}")


def suspend_for_a_while(life: Life) -> None:
    life.signal(signal.SIGSTOP)
    time.sleep(life.rng.random() * 2)
    life.signal(signal.SIGCONT)


def kill_host(life: Life) -> None:
    _to(life.host(), signal.SIGKILL)


def tell_host_to_end(life: Life) -> None:
    _to(life.host(), signal.SIGTERM)


def kill_guardian(life: Life) -> None:
    _to(life.host(b"guardian"), signal.SIGKILL)


def stop_host(life: Life) -> None:
    """It is alive and answers nothing: to be noticed, killed and replaced."""
    _to(life.host(), signal.SIGSTOP)


def starve_host(life: Life) -> None:
    """It gets no more memory, nor threads that need any."""
    host = life.host()
    if host is not None:
        try:
            pages = int(Path(f"/proc/{host}/statm").read_text().split()[0])
            room = pages * resource.getpagesize() + (256 << 10)
            resource.prlimit(host, resource.RLIMIT_AS, (room, room))
        except OSError:
            return  # it has just ended


def fill_the_disk(life: Life) -> None:
    """Where the run lies on a small disk: others fill it for a while, and make room again."""
    out = life.folder / "out"
    if not os.path.ismount(out):
        return
    life.tally["a disk was full for a while"] += 1
    filler = out / ".penstock" / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    except OSError:
        pass
    time.sleep(life.rng.random() * 2)
    filler.unlink(missing_ok=True)


HOST_FAULTS: tuple[Callable[[Life], None], ...] = (kill_host, tell_host_to_end, kill_guardian, stop_host, starve_host)
COORDINATOR_FAULTS: tuple[Callable[[Life], None], ...] = (
    kill_coordinator,
    kill_coordinator,
    end_in_good_order,
    end_at_once,
    suspend_and_take_over,
    suspend_for_a_while,
    fill_the_disk,
)


def _to(pid: int | None, number: int) -> None:
    if pid is not None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return  # it has just ended


def _errors(folder: Path) -> str:
    path = folder / "stderr.txt"
    return path.read_text()[-1500:] if path.exists() else ""


# ---------------------------------------------------------------- a scenario


def scenario(folder: Path, seed: int, wanted: dict[str, Content], tally: Counter[str], only: str) -> None:
    """Several disturbed lives, then the same command until it is done. Raises Broken."""
    rng = Random(seed)
    variant = rng.choice(VARIANTS)
    write(folder, variant, slow=SLOW)
    mounted = rng.random() < 0.3 and _mount(folder / "out")
    try:
        for _ in range(rng.randint(1, LIVES)):
            if disturbed(folder, rng, tally, only):
                break
        for _ in range(UNDISTURBED_LIVES):
            if not live(folder):
                break
        else:
            raise Broken(f"left alone, the run does not finish: {_errors(folder)}")
        no_orphans(folder)
        told = differences(content(folder), wanted[variant])
        for _ in Manifest(Layout(folder / "out"), Files()).replay():
            pass  # a chain of whole entries, from the first to the newest
        if told:
            raise Broken("; ".join(told))
    except (Broken, AssertionError, OSError, PenstockError) as broken:
        raise Broken(f"seed {seed}, {variant}: {broken}") from broken
    finally:
        for pid in leftovers(folder):
            _to(pid, signal.SIGKILL)
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder / "out")], check=False)


def disturbed(folder: Path, rng: Random, tally: Counter[str], only: str) -> bool:
    """One life, struck once or twice. A host is struck once only: a row at work when two replicas die in a row is
    blamed for it, and rightly so. Whether the run is done."""
    if rng.random() < 0.2 and not only:
        point = f"{rng.choice(FAULT_POINTS)}:{rng.choice((1, 1, 2, 4))}"
        tally["a fault point"] += 1
        return live(folder, point) == 0
    life = Life(folder, rng, tally)
    faults = [rng.choice(COORDINATOR_FAULTS)]
    if rng.random() < 0.5:
        faults.insert(0, rng.choice(HOST_FAULTS))
    if only:
        faults = [fault for fault in (*COORDINATOR_FAULTS, *HOST_FAULTS) if fault.__name__ == only][:1]
    for fault in faults:
        time.sleep(rng.choice((0.1, 0.5, 1.0)) * rng.random())
        if life.over():
            break
        tally[fault.__name__.replace("_", " ")] += 1
        fault(life)
    status = life.wait(LIFE_LIMIT_S + 3 * PROGRESS_TIMEOUT_S)
    tally["lives"] += 1
    return status == 0


def _mount(out: Path) -> bool:
    """A file system of one megabyte, where this user may make one."""
    out.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(out)]
    return not (os.geteuid() or subprocess.run(command, capture_output=True).returncode)


def work(folder: Path, seeds: range, until: float, wanted: dict[str, Content], told: Path, only: str) -> None:
    tally: Counter[str] = Counter()
    failures = []
    for seed in seeds:
        if time.monotonic() > until:
            break
        here = folder / str(seed)
        try:
            scenario(here, seed, wanted, tally, only)
        except Broken as broken:
            failures.append(str(broken))
            if len(failures) >= 5:
                break
        tally["runs compared"] += 1
        shutil.rmtree(here, ignore_errors=True)
    told.write_text(json.dumps({"tally": tally, "failures": failures}))


def torture(minutes: float, first_seed: int, jobs: int, most: int, only: str) -> tuple[Counter[str], list[str]]:
    """Scenarios for so long, and at most so many: what was done, and what was broken. only: the name of a fault."""
    with tempfile.TemporaryDirectory(prefix="penstock-torture-") as name:
        folder = Path(name)
        wanted = {}
        for variant in VARIANTS:
            write(folder / variant, variant)
            assert live(folder / variant) == 0, _errors(folder / variant)
            wanted[variant] = content(folder / variant)
        until = time.monotonic() + 60 * minutes
        children = []
        for job in range(jobs):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    seeds = range(first_seed + job, first_seed + most, jobs)
                    work(folder / f"job-{job}", seeds, until, wanted, folder / f"report-{job}.json", only)
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        failures = [f"a job ended with {status}" for child in children if (status := os.waitpid(child, 0)[1])]
        tally: Counter[str] = Counter()
        for job in range(jobs):
            path = folder / f"report-{job}.json"
            if path.exists():
                found = json.loads(path.read_text())
                tally.update(found["tally"])
                failures += found["failures"]
    return tally, failures


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=30)
    options.add_argument("--seed", type=int, default=0, help="of the first scenario")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--most", type=int, default=1_000_000, help="scenarios")
    names = [fault.__name__ for fault in dict.fromkeys((*COORDINATOR_FAULTS, *HOST_FAULTS))]
    options.add_argument("--only", default="", choices=names, help="this fault, once in each life")
    asked = options.parse_args()
    tally, failures = torture(asked.minutes, asked.seed, asked.jobs, asked.most, asked.only)
    for name, count in sorted(tally.items()):
        print(f"{count:7d}  {name}")
    for failure in failures:
        print("BROKEN:", failure)
    print(f"{tally['runs compared']} runs compared, {len(failures)} broken")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
