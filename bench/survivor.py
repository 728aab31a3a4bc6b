"""One of two replicas is killed at half load, and loads for 20 s: what requests that come meanwhile wait for.

The load is a share of the capacity of both (--percent); 50 is all that one of them can do. Reach: latency at the 99th
percentile at most twice that of the time before, every request answered.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from dataclasses import dataclass

import penstock as ps
from common import Figure, host_of, main, say

SLOTS, MS_PER_ROW, LOAD_MS = 8, 500.0, 20_000.0
CALM_S, AFTER_S = 15.0, 5.0  # before the kill; after the replica is back
CAPACITY = 2 * SLOTS / (MS_PER_ROW / 1000)  # requests per second


@dataclass
class Asked:
    at_s: float
    took_s: float = -1.0


async def ask(pool: ps.LaunchedPool, number: int, asked: Asked) -> None:
    await pool.agenerate([f"row {number}"], max_tokens=4)
    asked.took_s = time.monotonic() - asked.at_s


async def drive(pool: ps.LaunchedPool, load: float) -> tuple[list[Asked], float, float]:
    """Requests at equal distances. When the replica was killed, and when it was ready again."""
    every_s, began = 1.0 / (CAPACITY * load), time.monotonic()
    killed_at = back_at = 0.0
    requests: list[Asked] = []
    tasks: list[asyncio.Task[None]] = []
    while not back_at or time.monotonic() < back_at + AFTER_S:
        now = time.monotonic()
        await asyncio.sleep(max(0.0, began + len(requests) * every_s - now))
        requests.append(Asked(time.monotonic()))
        tasks.append(asyncio.create_task(ask(pool, len(requests), requests[-1])))
        if not killed_at and now > began + CALM_S:
            os.kill(host_of(pool.logs / "survivor-0.log"), signal.SIGKILL)
            killed_at = time.monotonic()
        if killed_at and not back_at and now > killed_at + 1.0 and pool.stats()["replicas"][0]["state"] == "ready":
            back_at = now
        if killed_at and now > killed_at + 120.0:
            raise SystemExit("the replica that was killed does not come back")
    await asyncio.gather(*tasks)
    return requests, killed_at, back_at


def at_99(took: list[float]) -> float:
    return sorted(took)[int(len(took) * 0.99)]


def measure(arguments: argparse.Namespace) -> list[Figure]:
    options = {"slots": SLOTS, "ms_per_row": MS_PER_ROW, "load_ms": LOAD_MS}
    with ps.launch(ps.Model("mock:survivor", name="survivor", engine_options=options), replicas=2) as pool:
        while [each["state"] for each in pool.stats()["replicas"]] != ["ready", "ready"]:
            time.sleep(0.1)
        requests, killed_at, back_at = asyncio.run(drive(pool, arguments.percent / 100))
    calm = [each.took_s for each in requests if each.at_s < killed_at - 2 * MS_PER_ROW / 1000]
    new = [each.took_s for each in requests if each.at_s >= killed_at]
    held = [each.took_s for each in requests if killed_at - MS_PER_ROW / 1000 <= each.at_s < killed_at]
    ratio = at_99(new) / at_99(calm)
    lost = sum(each.took_s < 0 for each in requests)
    say(f"{len(calm)} requests before, {len(new)} after; back after {back_at - killed_at:.1f} s")
    name = "survivor"
    return [
        Figure(name, "latency at the 99th percentile, before", f"{at_99(calm) * 1000:.0f} ms"),
        Figure(name, "of requests that came after the kill", f"{at_99(new) * 1000:.0f} ms"),
        Figure(name, "ratio", f"{ratio:.2f}", "<= 2", ratio <= 2),
        Figure(name, "longest of what was in flight then", f"{max(held):.1f} s"),
        Figure(name, "requests without an answer", str(lost), "0", lost == 0),
    ]


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], percent=50)
