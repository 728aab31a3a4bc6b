"""What it costs to cancel one request, by how many wait: in the dispatcher alone, no process.

Half of what is cancelled waits, at random places of the lanes; the other half is in flight. Median of several rounds.

python bench/cancel_cost.py [--cancels 1000]
"""

from __future__ import annotations

import argparse
import gc
import time
from random import Random
from statistics import median

from common import Figure, main
from penstock.core import events as ev
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.shape import DispatchLimits, DispatchShape, ReplicaShape

FEW, MANY = 10, 10_000
IN_FLIGHT = 256
ROUNDS = 7


def dispatcher(waiting: int) -> Dispatch:
    """One replica with 256 requests in flight, and `waiting` behind it."""
    machine = Dispatch(DispatchShape(("pool",), (ReplicaShape("replica", 0),), DispatchLimits()))
    machine.handle([ev.OpenPools(pools=[0])], 0.0)
    ready = ev.ReplicaReady(replica=0, incarnation=1, slots=IN_FLIGHT * 8 // 9, kv_tokens=0)
    tasks = list(range(IN_FLIGHT + waiting))
    ones = [1] * len(tasks)
    machine.handle([ready, ev.Submit(pool=0, step=0, tasks=tasks, orders=tasks, tokens_in=ones, tokens_out=ones)], 0.0)
    return machine


def cancel_s(waiting: int, cancels: int) -> float:
    """Seconds for one cancellation. Each is followed by a new request, so that as many wait as before."""
    machine, random = dispatcher(waiting), Random(0)
    spent, following = 0.0, IN_FLIGHT + waiting
    for number in range(cancels):
        lanes, replica = machine.pools[0].lanes, machine.replicas[0]
        places = list(replica.in_flight) if number % 2 else [request.task for request in lanes.requests()]
        order = [ev.CancelRequests(tasks=[random.choice(places)])]
        begin = time.perf_counter()
        machine.handle(order, 0.0)
        spent += time.perf_counter() - begin
        one = [1]
        machine.handle(
            [ev.Submit(pool=0, step=0, tasks=[following], orders=[following], tokens_in=one, tokens_out=one)], 0.0
        )
        following += 1
    return spent / cancels


def measure(arguments: argparse.Namespace) -> list[Figure]:
    gc.disable()
    few = median(cancel_s(FEW, arguments.cancels) for _ in range(ROUNDS))
    many = median(cancel_s(MANY, arguments.cancels) for _ in range(ROUNDS))
    return [
        Figure("cancel", f"one, {FEW} wait", f"{few * 1e6:.1f} us"),
        Figure("cancel", f"one, {MANY:,} wait", f"{many * 1e6:.1f} us"),
        Figure("cancel", "ratio", f"{many / few:.2f}", "<= 2", many / few <= 2.0),
    ]


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], cancels=300)
