"""How many rows a second the core alone decides on: Flow and Dispatch, no payload, no process, one core.

A driver as thin as can be performs the instructions: a source that never waits, replicas that answer in batches as real
hosts do (several answers a message, several sockets ready in one turn), a ledger that commits at once. Its own cost is
in the figure.

python bench/core_rate.py [--rows 300000] [--profile 1]
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import sys
import time
from collections import deque
from collections.abc import Iterable

from common import Figure, main, say
from penstock.core import events as ev
from penstock.core.core import Core
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.flow.flow import Flow
from penstock.core.shape import (
    DispatchLimits,
    DispatchShape,
    FlowLimits,
    FlowShape,
    Progress,
    ReplicaShape,
    StepShape,
)

TARGET_ROWS_PER_S = 100_000
ROW_BYTES = 512
MAX_TOKENS = 64


class Driver:
    """Performs what the core says, at once, and keeps of each replica only the order of what was sent to it."""

    def __init__(self, rows: int, replicas: int, slots: int, window_rows: int) -> None:
        self.rows = rows
        self.next_row = 0
        self.slots = slots
        self.queues: list[deque[tuple[int, int]]] = [deque() for _ in range(replicas)]
        self.arrived: ev.AnswersArrived | None = None
        self.by_batch: dict[int, ev.AnswersArrived] = {}
        self.status = ""
        self.sends = self.batches = 0
        flow = Flow(FlowShape((StepShape("generate"),), FlowLimits(window_rows=window_rows)), Progress(), 0.0)
        names = tuple(ReplicaShape(f"writer-{index}", 0) for index in range(replicas))
        self.core = Core(flow, Dispatch(DispatchShape(("writer",), names, DispatchLimits())))
        self.table = {
            ev.ReadRows: self.read_rows,
            ev.StartTasks: self.start_tasks,
            ev.StartReplica: self.start_replica,
            ev.Send: self.send,
            ev.Deliver: self.deliver,
            ev.TakeBackFrom: self.take_back,
            ev.Commit: lambda commit: (ev.Committed(cause=commit.id),),
            ev.PhaseEnded: self.phase_ended,
        }

    def perform(self, instruction: ev.Instruction) -> Iterable[ev.Event]:
        action = self.table.get(type(instruction))
        return action(instruction) if action is not None else ()

    def read_rows(self, instruction: ev.ReadRows) -> Iterable[ev.Event]:
        first, last = self.next_row, min(self.rows, self.next_row + instruction.max_rows)
        if first == last:
            return (ev.SourceEnded(total_rows=self.rows),)
        self.next_row = last
        rows = list(range(first, last))
        return (ev.RowsRead(rows=rows, sizes_bytes=[ROW_BYTES] * len(rows), unreadable=[], next_position=last),)

    def start_tasks(self, instruction: ev.StartTasks) -> Iterable[ev.Event]:
        count = len(instruction.tasks)
        return (
            ev.Submit(
                pool=0,
                step=0,
                tasks=instruction.tasks,
                orders=instruction.orders,
                tokens_in=[64] * count,
                tokens_out=[MAX_TOKENS] * count,
            ),
        )

    def start_replica(self, start: ev.StartReplica) -> Iterable[ev.Event]:
        return (ev.ReplicaReady(replica=start.replica, incarnation=start.incarnation, slots=self.slots, kv_tokens=0),)

    def send(self, send: ev.Send) -> Iterable[ev.Event]:
        self.sends += 1
        self.queues[send.replica].extend(zip(send.tasks, send.attempts, strict=True))
        return ()

    def deliver(self, deliver: ev.Deliver) -> Iterable[ev.Event]:
        tasks = self.by_batch.pop(deliver.batch).tasks
        if len(deliver.accepted) != len(tasks):
            tasks = [tasks[index] for index in deliver.accepted]
        return (ev.TasksDone(tasks=tasks, growth_bytes=[200] * len(tasks)),)

    def take_back(self, take: ev.TakeBackFrom) -> Iterable[ev.Event]:
        queue = self.queues[take.replica]
        asked = set(take.tasks)
        returned = [task for index, (task, _) in enumerate(queue) if index >= self.slots and task in asked]
        gone = set(returned)
        self.queues[take.replica] = deque(item for item in queue if item[0] not in gone)
        return (self.answers(take.replica, 0, returned),)

    def phase_ended(self, instruction: ev.PhaseEnded) -> Iterable[ev.Event]:
        self.status = instruction.status
        return ()

    def answers(self, replica: int, count: int, returned: list[int] | None = None) -> ev.AnswersArrived:
        queue = self.queues[replica]
        taken = [queue.popleft() for _ in range(min(count, len(queue)))]
        left = len(queue)
        self.batches += 1
        batch = ev.AnswersArrived(
            batch=self.batches,
            replica=replica,
            incarnation=1,
            tasks=[task for task, _ in taken],
            attempts=[attempt for _, attempt in taken],
            codes=None,
            tokens_in=[64] * len(taken),
            tokens_out=[40] * len(taken),
            executing=min(left, self.slots),
            waiting=max(0, left - self.slots),
            turnaround_s=0.002,
            progress=self.next_row,
            returned=returned,
        )
        self.by_batch[batch.batch] = batch
        return batch


def run(rows: int, replicas: int, slots: int, answers: int, sockets: int) -> tuple[float, Driver]:
    """CPU seconds that `rows` rows took on `replicas` replicas."""
    driver = Driver(rows, replicas, slots, window_rows=max(16_384, 2 * replicas * slots))
    core, perform = driver.core, driver.perform
    gc.collect()
    began = time.process_time()  # of this process alone: neighbours on the machine do not count
    now, at = 0.0, 0
    core.turn([ev.Tick()], now, perform)
    while not driver.status:
        now += 0.001
        ready = [(at + step) % replicas for step in range(min(sockets, replicas))]
        at = (at + len(ready)) % replicas
        events: list[ev.Event] = [driver.answers(replica, answers) for replica in ready if driver.queues[replica]]
        core.turn(events or [ev.Tick()], now, perform)
    return time.process_time() - began, driver


def measure(options: argparse.Namespace) -> list[Figure]:
    figures = []
    for replicas in (8, 1_000):
        profile = cProfile.Profile()
        if options.profile:
            profile.enable()
        took_s, driver = run(options.rows, replicas, options.slots, options.answers, options.sockets)
        profile.disable()
        rate = options.rows / took_s
        ended = driver.core.flow.tally.out
        say(f"replicas {replicas:5d}: {ended} rows, {driver.status}, {took_s:.2f} s, {driver.sends} sends")
        figures.append(
            Figure(
                "core_rate",
                f"decisions for {replicas:,} replicas",
                f"{rate:,.0f} rows/s",
                f">= {TARGET_ROWS_PER_S:,} rows/s",
                rate >= TARGET_ROWS_PER_S,
            )
        )
        if options.profile:
            pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(18)
    return figures


if __name__ == "__main__":
    # answers: in one message of a host; sockets: replicas that answer in one turn; profile 1: also where the time goes
    main(measure, __doc__.splitlines()[0], rows=300_000, slots=64, answers=16, sockets=4, profile=0)
