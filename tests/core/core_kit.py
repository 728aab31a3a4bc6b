"""What the tests of the core share: machines with small limits, and short ways to say events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from penstock.core import events as ev
from penstock.core.counts import Counts
from penstock.core.dispatch.check import check_dispatch
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.dispatch.lanes import NO_DEADLINE, Request
from penstock.core.events import Event, Instruction
from penstock.core.flow.check import check_flow
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

I = TypeVar("I", bound=Instruction)  # noqa: E741

CHAIN = (StepShape("draft"), StepShape("filter", (0,)), StepShape("polish", (1,)))
NOTHING = Counts()
ONE = (StepShape("generate"),)
DIAMOND = (StepShape("draft"), StepShape("left", (0,)), StepShape("right", (0,)), StepShape("joined", (1, 2)))


def request(
    task: int,
    *,
    order: int | None = None,
    step: int = 0,
    priority: int = 100,
    deadline: float = NO_DEADLINE,
    out: int = 10,
) -> Request:
    return Request(task, step, task if order is None else order, priority, deadline, 5, out)


class Driven:
    """A machine, its clock, and what it said last; checks every invariant after each call."""

    now = 0.0

    def __init__(self, machine: Flow | Dispatch) -> None:
        self.machine = machine
        self.said: list[Instruction] = []
        self.lines: list[str] = []  # all that was said to the machine and by it

    def tell(self, *events: Event, after_s: float = 0.0) -> list[Instruction]:
        self.now += after_s
        self.said = self.machine.handle(events, self.now)
        self.lines += [f"{self.now:8.2f} > {event!r}" for event in events]
        self.lines += [f"{self.now:8.2f} < {said!r}" for said in self.said]
        if isinstance(self.machine, Flow):
            check_flow(self.machine)
        else:
            check_dispatch(self.machine)
        return self.said

    def only(self, kind: type[I]) -> I:
        """The one instruction of this kind among what was said last."""
        found = self.all(kind)
        assert len(found) == 1, f"{len(found)} {kind.__name__} in {self.said}"
        return found[0]

    def all(self, kind: type[I]) -> list[I]:
        return [said for said in self.said if isinstance(said, kind)]


class DrivenFlow(Driven):
    machine: Flow

    def __init__(
        self,
        steps: Sequence[StepShape] = ONE,
        *,
        progress: Progress | None = None,
        ordered: bool = True,
        **limits: int | float,
    ) -> None:
        chosen: dict[str, int | float] = {"commit_every_s": 1.0, "reach": 64, "window_rows": 20, "max_dead": 1.0}
        shape = FlowShape(tuple(steps), FlowLimits(**{**chosen, **limits}), ordered)  # type: ignore[arg-type]
        super().__init__(Flow(shape, progress or Progress(), 0.0))
        self.steps = len(steps)

    def read(self, rows: Iterable[int], *, unreadable: Iterable[int] = (), size: int = 10) -> list[Instruction]:
        found, bad = list(rows), list(unreadable)
        last = max([*found, *bad], default=-1) + 1
        event = ev.RowsRead(rows=found, sizes_bytes=[size] * len(found), unreadable=bad, next_position=last)
        return self.tell(event)

    def task(self, row: int, step: int = 0) -> int:
        return row * self.steps + step

    def done(self, *tasks: int, growth: int = 1) -> list[Instruction]:
        return self.tell(ev.TasksDone(tasks=list(tasks), growth_bytes=[growth] * len(tasks)))

    def committed(self, commit: ev.Commit, moved: Counts = NOTHING) -> list[Instruction]:
        return self.tell(ev.Committed(cause=commit.id, moved=moved))


class DrivenDispatch(Driven):
    machine: Dispatch

    def __init__(self, replicas: int = 2, *, pools: int = 1, **limits: int | float) -> None:
        shape = DispatchShape(
            tuple(f"pool-{index}" for index in range(pools)),
            tuple(ReplicaShape(f"replica-{index}", index % pools) for index in range(replicas)),
            DispatchLimits(**limits),  # type: ignore[arg-type]
        )
        super().__init__(Dispatch(shape))

    def ready(self, *replicas: int, slots: int = 2, kv_tokens: int = 0) -> list[Instruction]:
        """Open the pools, and have these replicas ready."""
        self.tell(ev.OpenPools(pools=list(range(len(self.machine.pools)))))
        return self.tell(
            *(
                ev.ReplicaReady(replica=index, incarnation=self.incarnation(index), slots=slots, kv_tokens=kv_tokens)
                for index in replicas
            )
        )

    def incarnation(self, replica: int) -> int:
        return self.machine.replicas[replica].incarnation

    def submit(self, *tasks: int, pool: int = 0, step: int = 0, tokens_in: int = 5, out: int = 10) -> list[Instruction]:
        count = len(tasks)
        return self.tell(
            ev.Submit(
                pool=pool,
                step=step,
                tasks=list(tasks),
                orders=list(tasks),
                tokens_in=[tokens_in] * count,
                tokens_out=[out] * count,
            )
        )

    def answers(
        self,
        replica: int,
        *tasks: int,
        attempts: Sequence[int] | None = None,
        codes: list[str] | None = None,
        executing: int = 0,
        waiting: int = 0,
        progress: int = 1,
        returned: list[int] | None = None,
        incarnation: int | None = None,
        sized: Sequence[tuple[int, int]] = (),
        tokens_out: int = 10,
    ) -> ev.AnswersArrived:
        """An answer to each of `tasks`, of the attempt that is out unless told otherwise."""
        out = self.machine.replicas[replica].in_flight
        if attempts is None:
            attempts = [out[task].attempt if task in out else 1 for task in tasks]
        return ev.AnswersArrived(
            batch=1,
            replica=replica,
            incarnation=self.incarnation(replica) if incarnation is None else incarnation,
            tasks=list(tasks),
            attempts=list(attempts),
            codes=codes,
            tokens_in=[5] * len(tasks),
            tokens_out=[tokens_out] * len(tasks),
            executing=executing,
            waiting=waiting,
            turnaround_s=0.01,
            progress=progress,
            returned=returned,
            sized=list(sized),
        )

    def lose(self, replica: int, *, jitter: float = 0.0, after_s: float = 0.0) -> list[Instruction]:
        lost = ev.ReplicaLost(replica=replica, incarnation=self.incarnation(replica), reason="died", jitter=jitter)
        return self.tell(lost, after_s=after_s)

    def bring_back(self, replica: int, *, slots: int = 2) -> list[Instruction]:
        """Wait until the replica is started again, and have it ready."""
        self.tell(ev.Tick(), after_s=100.0)
        event = ev.ReplicaReady(replica=replica, incarnation=self.incarnation(replica), slots=slots, kv_tokens=0)
        return self.tell(event)

    def out(self, replica: int) -> list[int]:
        return list(self.machine.replicas[replica].in_flight)

    def sent(self) -> dict[int, list[int]]:
        """Replica -> tasks, of the sends among what was said last."""
        return {send.replica: send.tasks for send in self.all(ev.Send)}
