"""One invocation of a run: everything it holds, put together in order and taken apart in the reverse order.

nursery ─ executor          before any thread starts, since functions travel by fork
source ─ schema ─ checks    nothing has been loaded yet
ledger                      the output folder is ours from here on
reader, writer              two threads, each ending what it does in an event
core, shell                 the loop runs
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

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
from penstock.data.base import Source
from penstock.data.columns import TableBuilder
from penstock.data.open import open_rows, open_source
from penstock.executors.base import Launch
from penstock.executors.local import LocalExecutor
from penstock.executors.nursery import Nursery
from penstock.ledger.ledger import Ledger
from penstock.report.facts import RunFacts
from penstock.runtime.clock import RunClock
from penstock.runtime.inbox import Inbox
from penstock.runtime.observe import Observer
from penstock.runtime.plan import ReplicaPlan, RunPlan
from penstock.runtime.reader import Reader
from penstock.runtime.record import Record
from penstock.runtime.rows import RowStore
from penstock.runtime.run import run_phase
from penstock.runtime.shell import Shell
from penstock.runtime.signals import Interrupts
from penstock.runtime.tasks import Tasks
from penstock.runtime.writer import Writer
from penstock.spec.columns import check_columns
from penstock.spec.graph import StepNode
from penstock.spec.identity import identity_diff, pipeline_identity
from penstock.spec.pipeline import Pipeline
from penstock.steps.base import StepLogic
from penstock.steps.registry import logic_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock.runtime.api import RunOptions


WINDOW_ROWS_PER_REPLICA = 2_048  # twice what the engines with the most sequences hold


class Invocation:
    """Entering it checks everything and opens the run; `run` drives it to its end; leaving it ends every process and
    thread that it began."""

    def __init__(
        self,
        pipeline: Pipeline,
        options: RunOptions,
        out_dir: Path,
        planned: RunPlan,
        clock: RunClock,
        inbox: Inbox,
        interrupts: Interrupts,
    ) -> None:
        self._pipeline, self._options, self._out_dir = pipeline, options, out_dir
        self._plan, self._clock, self._inbox, self._interrupts = planned, clock, inbox, interrupts
        self._nodes = pipeline.order()
        self._names = [node.name for node in self._nodes]
        self._stack = ExitStack()
        self._observer: Observer | None = None
        self._record: Record | None = None

    def __enter__(self) -> Invocation:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        pipeline = self._pipeline
        self._executor = LocalExecutor(_nursery(self._nodes, self._plan))
        self._stack.callback(self._executor.close)
        self._source = self._open_source()
        self._stack.callback(self._source.close)
        self._logics = [logic_for(node.step, self._source.schema.names) for node in self._nodes]
        check_columns(pipeline, self._source.schema.names or None)  # a source without a row has no columns to miss
        self._ledger = Ledger.open(
            self._out_dir,
            identity=pipeline_identity(pipeline),
            input_identity=self._source.identity(),
            table=partial(_builder, _known_columns(self._source.schema, self._logics)),
            sink_format=pipeline.sink.format,
            order=pipeline.sink.order,
            diff=identity_diff,
            takeover=self._options.takeover,
            locate=self._source.locate,
        )
        self._stack.callback(self._ledger.close)

    def _open_source(self) -> Source:
        source = self._pipeline.source
        if source.rows is not None:
            return open_rows([dict(row) for row in source.rows])
        return open_source(source.paths, source.format, source.column_types)

    # ------------------------------------------------------------ running

    def run(self, listener: Callable[[RunFacts], None]) -> RunFacts:
        """Drive the run to its end; the facts at its end."""
        core, shell, observer = self._assemble()
        interval_s, shown_at = self._options.interval_s, -1.0

        def watch(now: float) -> None:
            nonlocal shown_at
            if now - shown_at >= interval_s:
                shown_at = now
                listener(observer.facts())

        status = run_phase(core, shell, self._clock, watch)
        facts = observer.facts(status)
        if status == "done" and not facts.rows_in:
            facts.warnings.append("the source has no rows: " + ", ".join(self._pipeline.source.paths[:3]))
        return facts

    @property
    def failure_code(self) -> int:
        """The exit code of a run that ended as failed."""
        return self._record.exit_code if self._record is not None else 1

    def facts(self, status: str, *, at_once: bool = False, reason: str = "") -> RunFacts | None:
        """The facts of a run that was left before its end; None where nothing had begun."""
        if self._observer is None:
            return None
        facts = self._observer.facts(status)
        return msgspec.structs.replace(facts, at_once=at_once, reason=reason or facts.reason)

    def _assemble(self) -> tuple[Core, Shell, Observer]:
        state = self._ledger.state
        limits = self._limits()
        core = Core(
            Flow(self._flow_shape(limits), self._progress(), self._clock.now()),
            Dispatch(self._dispatch_shape()),
        )
        store = RowStore(self._source)
        self._record = record = Record(self._plan, self._out_dir / "logs")
        tasks = Tasks(self._nodes, self._logics, self._plan.pool_of_step, store, record, self._pipeline.seed)
        reader = Reader(
            self._source, self._inbox, state.watermark, state.ended_above, self._options.limit, limits.read_rows
        )
        writer = Writer(self._ledger, self._inbox, self._out_dir)
        reader.start()
        writer.start()
        self._stack.callback(reader.close)
        self._stack.callback(writer.close)
        shell = Shell(
            clock=self._clock,
            inbox=self._inbox,
            interrupts=self._interrupts,
            executor=self._executor,
            launches=[self._launch(replica) for replica in self._plan.replicas],
            reader=reader,
            writer=writer,
            store=store,
            tasks=tasks,
            step_names=self._names,
            record=record,
        )
        self._stack.callback(shell.close)
        self._observer = observer = Observer(
            clock=self._clock,
            core=core,
            shell=shell,
            writer=writer,
            record=record,
            plan=self._plan,
            step_names=self._names,
            out_dir=str(self._out_dir),
            reused=core.flow.commits.durable,
            estimate=self._estimate_rows,
        )
        return core, shell, observer

    def _estimate_rows(self) -> int | None:
        """Rows that this invocation will have seen at its end, as far as that can be told."""
        known, limit = self._source.estimate_rows(), self._options.limit
        return limit if known is None else known if limit is None else min(known, limit)

    def _limits(self) -> FlowLimits:
        """The window holds a few times what the replicas can; a pipeline may say otherwise."""
        replicas = len(self._plan.replicas)
        default = FlowLimits()
        window = self._pipeline.window
        rows = max(default.window_rows, WINDOW_ROWS_PER_REPLICA * replicas)
        rows = window.rows if window is not None and window.rows else rows
        window_bytes = window.bytes if window is not None and window.bytes else default.window_bytes
        return msgspec.structs.replace(
            default,
            window_rows=rows,
            window_bytes=window_bytes,
            read_rows=max(1, min(default.read_rows, rows // 4)),
            commit_every_s=self._pipeline.commit_every_s,
            max_dead=self._pipeline.max_dead,
        )

    def _flow_shape(self, limits: FlowLimits) -> FlowShape:
        steps = tuple(StepShape(node.name, node.after) for node in self._nodes)
        return FlowShape(steps, limits, ordered=self._pipeline.sink.order == "input")

    def _dispatch_shape(self) -> DispatchShape:
        replicas = tuple(ReplicaShape(r.id, r.pool, r.progress_timeout_s) for r in self._plan.replicas)
        return DispatchShape(tuple(pool.name for pool in self._plan.pools), replicas, DispatchLimits())

    def _progress(self) -> Progress:
        state = self._ledger.state
        counts = state.counts
        return Progress(
            watermark=state.watermark,
            ended_above=tuple(sorted(state.ended_above)),
            out=counts.out,
            dead=counts.dead,
            filtered=counts.filtered,
            dead_sources=counts.dead_sources,
            steps=tuple(counts.steps.get(name, (0, 0, 0)) for name in self._names),
        )

    def _launch(self, replica: ReplicaPlan) -> Launch:
        return Launch(
            replica=replica.id,
            config=replica.config,
            log=self._out_dir / "logs" / f"{replica.id}.log",
            functions=replica.functions,
            forked=replica.forked,
            python=replica.python,
            env=replica.env,
            timeout_s=replica.timeout_s,
        )


def _nursery(nodes: Sequence[StepNode], planned: RunPlan) -> Nursery | None:
    if not planned.forked:
        return None
    return Nursery([planned.forked.get(node.index) for node in nodes])


def _known_columns(source: pa.Schema, logics: Sequence[StepLogic]) -> pa.Schema:
    """The columns of the output whose types are known before the first row: the source's, then those of the steps."""
    fields = {field.name: field for field in source}
    for logic in logics:
        for field in logic.columns or ():
            fields[field.name] = field
    return pa.schema(list(fields.values()))


def _builder(known: pa.Schema, fixed: pa.Schema | None) -> TableBuilder:
    return TableBuilder(known) if fixed is None else TableBuilder.from_fixed(fixed)
