"""The payloads of the unfinished rows, as runtime/ keeps them, and what the steps make of them."""

from __future__ import annotations

from collections.abc import Container, Iterable

from msgspec import Struct

from penstock.core import events as ev
from penstock.core.events import Event
from penstock.core.shape import FlowLimits
from penstock.sim.checkers import RequestChecks
from penstock.sim.pipeline import Path, SimPipeline
from penstock.sim.replicas import SimAnswer, SimRequest
from penstock.sim.sink import Dead, Paid, SimBatch, SimOutput
from penstock.sim.tally import Coverage
from penstock.sim.violations import Violation

__all__ = ["SimRows"]

_PROVEN = ("engine_error", "engine_crash", "replica_lost", "expired")


class _Payload(Struct, gc=False):
    position: int
    path: Path
    values: dict[int, Path]  # step -> the row's path when it passed it


class _Way(Struct, gc=False):
    """What counts of the steps for one source row: (step, path) that its rows have passed on the way to where they
    ended, and (step, dead) where they ended early. What a row passed in other branches than that does not count."""

    passed: set[tuple[int, Path]] = set()
    early: list[tuple[int, bool]] = []

    def add_to(self, totals: list[list[int]]) -> None:
        for step, _ in self.passed:
            totals[step][0] += 1
            totals[step][1] += 1
        for step, dead in self.early:
            totals[step][0] += 1
            totals[step][2] += dead


class SimRows:
    """paid: what the lives before have committed of rows that have not ended: position -> (path, step) -> code."""

    def __init__(
        self,
        pipeline: SimPipeline,
        requests: RequestChecks,
        tally: Coverage,
        paid: dict[int, dict[tuple[Path, int], str]],
        classes: tuple[int, ...] = (100,),
        timeout_s: float | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.requests = requests
        self.tally = tally
        self.classes = classes
        self._timeout_s = timeout_s
        self.payloads: dict[int, _Payload] = {}
        self._steps = len(pipeline.steps)
        self._ways: dict[int, _Way] = {}  # by source position, until it is committed
        self._ended_at: dict[int, int] = {}  # row that ends early -> step
        self._dead: dict[int, Dead] = {}
        self._filtered: dict[int, list[Path]] = {}
        self._paid = {position: dict(results) for position, results in paid.items()}
        self._fresh: dict[int, list[Paid]] = {}  # source position -> results that no batch has had yet

    def admit(self, event: ev.RowsRead) -> None:
        for position in (*event.rows, *event.unreadable, *(position for position, _ in event.families)):
            if position in self._ways:
                raise Violation(f"source row {position} was read twice")
            self._ways[position] = _Way()
        for position in event.rows:
            (path,) = self.pipeline.left(position)
            self.payloads[position] = _Payload(position, path, {})
        for position in event.unreadable:
            self._dead[position] = Dead(position, (), "bad_json", False)

    # ------------------------------------------------------------ tasks

    def start(self, start: ev.StartTasks) -> Iterable[Event]:
        step, pipeline = start.step, self.pipeline
        dead: list[int] = []
        events: list[Event] = []
        pool, submits = pipeline.steps[step].pool, dict[tuple[int, float | None], ev.Submit]()
        for task, order in zip(start.tasks, start.orders, strict=True):
            row = self._payload(task)
            if order != row.position or task % self._steps != step:
                raise Violation(f"task {task} of source row {row.position} was started as {order} at step {step}")
            self.requests.submitted(task, pool, self.priority(task))
            known = self._paid.get(row.position, {}).get((row.path, step))
            if known is not None:
                self.requests.cancelled(task)
                self.tally.hit("result of a life before")
                events += self._replayed(task, known)
                continue
            if pipeline.fate(row.position, row.path, step) == "unrendered":
                self.requests.cancelled(task)
                self.died(task, "template_missing_field")
                dead.append(task)
                continue
            tokens_in, limit, _ = pipeline.work(row.position, row.path, step)
            kind = self.priority(task), self._timeout_s if order % 3 == 0 else None
            if kind not in submits:
                submits[kind] = ev.Submit(
                    pool=pool,
                    step=step,
                    tasks=[],
                    orders=[],
                    tokens_in=[],
                    tokens_out=[],
                    priority=kind[0],
                    timeout_s=kind[1],
                )
            submit = submits[kind]
            self.requests.tasks[task].timeout_s = kind[1]
            submit.tasks.append(task)
            submit.orders.append(order)
            submit.tokens_in.append(tokens_in)
            submit.tokens_out.append(limit)
        events += submits.values()
        return [*events, ev.TasksDead(tasks=dead)] if dead else events

    def _replayed(self, task: int, code: str) -> Iterable[Event]:
        if code:
            self.died(task, code)
            return [ev.TasksDead(tasks=[task])]
        return self._concluded([(task, 0)])

    def priority(self, task: int) -> int:
        return self.classes[self._payload(task).position % len(self.classes)]

    def request(self, task: int, attempt: int) -> SimRequest:
        row, step = self._payload(task), task % self._steps
        tokens_in, _, tokens_out = self.pipeline.work(row.position, row.path, step)
        return SimRequest(task, attempt, row.position, row.path, step, tokens_in, tokens_out, self.priority(task))

    def answered(self, answers: list[SimAnswer]) -> Iterable[Event]:
        for answer in answers:
            task, row = answer.task, self._payload(answer.task)
            if answer.value != (row.position, row.path, task % self._steps):
                raise Violation(f"task {task} of row {row.position}{row.path} got an answer to {answer.value}")
            self._keep(task, "")
        return self._concluded([(answer.task, answer.tokens_out) for answer in answers])

    def failed(self, task: int, code: str) -> None:
        """The request ended without a result, and the row with it."""
        self._keep(task, code)
        self.died(task, code)

    def _keep(self, task: int, code: str) -> None:
        row = self._payload(task)
        self._fresh.setdefault(row.position, []).append(Paid(row.path, task % self._steps, code))

    def _concluded(self, answers: list[tuple[int, int]]) -> Iterable[Event]:
        """The step turns answers (task, tokens) into columns, and rows into none or several."""
        done, filtered = ev.TasksDone(tasks=[], growth_bytes=[]), ev.TasksFiltered(tasks=[])
        events: list[Event] = []
        for task, tokens_out in answers:
            row = self._payload(task)
            step = task % self._steps
            if self.pipeline.fate(row.position, row.path, step) == "filtered":
                self._ended_at.setdefault(task // self._steps, step)
                filtered.tasks.append(task)
                continue
            row.values[step] = row.path
            if self.pipeline.steps[step].kind == "expand":
                children = self.pipeline.children(row.position, row.path, step)
                sizes = [self.pipeline.size_bytes(row.position, (*row.path, child)) for child in range(children)]
                events.append(ev.TaskExpanded(task=task, sizes_bytes=sizes))
            else:
                done.tasks.append(task)
                done.growth_bytes.append(5 + tokens_out)
        if done.tasks:
            events.append(done)
        if filtered.tasks:
            events.append(filtered)
        return events

    def adopt(self, adopt: ev.Adopt) -> Iterable[Event]:
        parent = self.payloads.pop(adopt.task // self._steps)
        self.tally.hit("expanded")
        for child in range(adopt.count):
            if adopt.first_row + child in self.payloads:
                raise Violation(f"row number {adopt.first_row + child} was given twice")
            payload = _Payload(parent.position, (*parent.path, child), dict(parent.values))
            self.payloads[adopt.first_row + child] = payload
        return ()

    def adopt_family(self, adopt: ev.AdoptFamily) -> Iterable[Event]:
        self.tally.hit("family of a phase before")
        paths = self.pipeline.left(adopt.position)
        if len(paths) != adopt.count:
            raise Violation(f"{adopt.count} rows were taken in of source row {adopt.position}, which has {paths}")
        for number, path in enumerate(paths, adopt.first_row):
            if number in self.payloads:
                raise Violation(f"row number {number} was given twice")
            self.payloads[number] = _Payload(adopt.position, path, {})
        return ()

    def cancel(self, cancel: ev.CancelTasks) -> Iterable[Event]:
        for task in cancel.tasks:
            self.requests.cancelled(task)
        return ()

    def died(self, task: int, code: str) -> None:
        row = self._payload(task)
        self._ended_at.setdefault(task // self._steps, task % self._steps)
        self._dead.setdefault(task // self._steps, Dead(row.position, row.path, code, code in _PROVEN))

    def drop(self, drop: ev.DropRows) -> Iterable[Event]:
        for number in drop.rows:
            row = self.payloads.pop(number, None)
            if row is None:
                raise Violation(f"row {number} was dropped twice")
            step = self._ended_at.pop(number)
            way = self._ways[row.position]
            way.passed.update((at, path) for at, path in row.values.items() if at in self.pipeline.above[step])
            way.early.append((step, number in self._dead))
            if number not in self._dead:
                self.tally.hit("filtered")
                self._filtered.setdefault(row.position, []).append(row.path)
        return ()

    def _payload(self, task: int) -> _Payload:
        row = self.payloads.get(task // self._steps)
        if row is None:
            raise Violation(f"task {task} is about a row that has ended")
        return row

    # ------------------------------------------------------------ commits

    def take(self, commit: ev.Commit) -> SimBatch:
        """What a commit names, taken out of memory."""
        outputs = []
        for number in commit.finished:
            row = self.payloads.pop(number, None)
            if row is None:
                raise Violation(f"row {number} is to be committed, but it is not there")
            if len(row.values) == self.pipeline.end - self.pipeline.begin > 1 and not self.pipeline.is_chain:
                joined = any(len(step.after) > 1 for step in self.pipeline.steps[self.pipeline.begin :])
                self.tally.hit("joined" if joined else "phase with several exits")
            self._ways[row.position].passed.update(row.values.items())
            outputs.append(SimOutput(number, row.position, row.path, tuple(sorted(row.values.items()))))
        dead = [self._dead.pop(number) for number in commit.dead if number in self._dead]
        if len(dead) != len(commit.dead):
            raise Violation(f"rows {commit.dead} are to be committed as dead; {len(dead)} are")
        filtered = [(position, path) for position in commit.ended for path in self._filtered.pop(position, ())]
        steps = [[0, 0, 0] for _ in range(self._steps)]
        for position in commit.ended:
            self._ways.pop(position).add_to(steps)
        for position in commit.ended:
            self._fresh.pop(position, None)
            self._paid.pop(position, None)
        partial = {position: self._fresh.pop(position, []) for position in commit.partial}
        return SimBatch(commit, outputs, dead, filtered, steps, partial)

    def check(self, limits: FlowLimits, partial: Container[int], ended: Container[int]) -> None:
        """Memory is bounded: what is open fits the window, and what has ended waits for two commits at most. What is
        paid for is in the next batch."""
        forgotten = [position for position in self._fresh if position not in partial and position not in ended]
        if forgotten:
            raise Violation(f"results of source rows {forgotten} were paid for, and no commit will have them")
        most = limits.window_rows + 2 * limits.commit_rows + limits.read_rows
        if len(self._ways) > most:
            raise Violation(f"{len(self._ways)} source rows are in memory; {most} may be")
