"""The phases of one invocation: what each contains and reads, and the progress that its flow starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import msgspec
import pyarrow as pa

from penstock.core.counts import Counts
from penstock.core.flow.flow import Flow
from penstock.core.flow.limit import admission_ends
from penstock.core.shape import FlowLimits, FlowShape, Progress, StepShape
from penstock.data.base import Source
from penstock.data.columns import TableBuilder
from penstock.ledger.ledger import Ledger
from penstock.planning.phases import PhasePlan
from penstock.planning.run_plan import RunPlan
from penstock.runtime.replicas.record import Record
from penstock.runtime.rows.reader import Reader
from penstock.runtime.rows.store import RowStore
from penstock.runtime.rows.tasks import Tasks
from penstock.runtime.rows.views import views_of
from penstock.runtime.run.scope import RunScope
from penstock.runtime.run.session import Session
from penstock.runtime.watch.stalls import Stalls
from penstock.spec.branches import has_branches
from penstock.spec.columns import Known, columns_after
from penstock.spec.pipeline import Pipeline
from penstock.steps.base import StepLogic

__all__ = ["WINDOW_ROWS_PER_REPLICA", "Phase", "Phases"]

WINDOW_ROWS_PER_REPLICA = 2_048  # twice what the engines with the most sequences hold


class Phase(NamedTuple):
    """A phase that is ready to run: where its rows come from, what is held of them, and what is done to them.

    estimate: rows that it will have seen at its end, as far as that is known
    """

    flow: Flow
    reader: Reader
    store: RowStore
    tasks: Tasks
    estimate: Callable[[], int | None]


class Phases:
    """Makes one phase after the other; the reader of the one before ends when the next is made, or with `close`."""

    def __init__(
        self,
        pipeline: Pipeline,
        scope: RunScope,
        plan: RunPlan,
        ledger: Ledger,
        source: Source,
        logics: Sequence[StepLogic],
        record: Record,
        session: Session,
        stalls: Stalls,
    ) -> None:
        self._pipeline, self._scope, self._plan = pipeline, scope, plan
        self._ledger, self._source, self._logics = ledger, source, logics
        self._record, self._session, self._stalls = record, session, stalls
        self._nodes = pipeline.order()
        self._reader: Reader | None = None
        self._stack = ExitStack()

    @property
    def holds_source(self) -> bool:
        """Whether a reader is still in a read that does not come back; closing the source would wait for it."""
        return self._reader is not None and self._reader.holds_source

    def close(self) -> None:
        self._stack.close()

    def begin(self, number: int) -> Phase:
        self._stack.close()
        self._session.interrupts.repeat()
        phase, ledger, scope = self._plan.phases[number], self._ledger, self._scope
        source = ledger.inputs() if number else self._source
        known = _known_columns(source.schema, self._logics[phase.begin : phase.end])
        if phase.end == len(self._nodes) and has_branches(self._nodes):
            known = _as_joined(known, columns_after(self._pipeline, self._source.schema.names))
        ledger.begin_phase(partial(_builder, known, scope.columns, phase.end == len(self._nodes)))
        state = ledger.state
        carries = number < ledger.phases - 1
        limits = self._limits(number)
        self._note_limit(limits.source_rows)
        progress = self._progress(number, source.total_rows if number else None)
        flow = Flow(self._flow_shape(limits, phase, carries=carries), progress, self._session.clock.now())
        store = RowStore(source, views_of(self._nodes, phase.begin, phase.end))
        tasks = Tasks(
            self._nodes,
            self._logics,
            self._plan.pool_of_step,
            store,
            self._record,
            self._pipeline.seed,
            ledger.paid(),
            scope.selection,
        )
        mark = scope.mark or state.mark
        reader = Reader(source, self._session.inbox, state.watermark, state.ended_above, limits.read_rows, mark)
        self._read_with(reader)
        estimate = source.estimate_rows if number else self._estimate_rows
        return Phase(flow, reader, store, tasks, estimate)

    def _read_with(self, reader: Reader) -> None:
        reader.start()
        self._reader = reader
        self._stack.callback(reader.close)
        for activity in (reader.reading, reader.finding):
            self._stalls.add(activity)
            self._stack.callback(self._stalls.remove, activity)

    def _estimate_rows(self) -> int | None:
        known, limit = self._source.estimate_rows(), self._scope.limit
        return limit if known is None else known if limit is None else min(known, limit)

    # ------------------------------------------------------------ what the flow receives

    def _limits(self, number: int) -> FlowLimits:
        """The window holds a few times what the replicas can; a pipeline may say otherwise."""
        default = FlowLimits()
        window = self._pipeline.window
        rows = max(default.window_rows, WINDOW_ROWS_PER_REPLICA * len(self._plan.replicas))
        rows = window.rows if window is not None and window.rows else rows
        window_bytes = window.bytes if window is not None and window.bytes else default.window_bytes
        return msgspec.structs.replace(
            default,
            window_rows=rows,
            window_bytes=window_bytes,
            read_rows=max(1, min(default.read_rows, rows // 4)),
            commit_every_s=self._pipeline.commit_every_s,
            max_dead=self._scope.max_dead,
            source_rows=self._scope.limit if number == 0 else None,
        )

    def _note_limit(self, limit: int | None) -> None:
        """Say why more rows are taken in than were asked for."""
        ends = admission_ends(limit, self._progress(0))
        if ends is not None and limit is not None and ends > max(limit, self._ledger.state.watermark):
            self._record.note(
                f"--limit {limit}: an earlier invocation has finished rows up to row {ends - 1}, so all rows before "
                "it are processed too; otherwise the output would have gaps"
            )

    def _flow_shape(self, limits: FlowLimits, phase: PhasePlan, *, carries: bool) -> FlowShape:
        steps = tuple(
            StepShape(node.name, node.after, logic.pool is not None)
            for node, logic in zip(self._nodes, self._logics, strict=True)
        )
        ordered = carries or self._pipeline.sink.order == "input"
        return FlowShape(steps, limits, ordered=ordered, begin=phase.begin, end=phase.end, carries=carries)

    def _progress(self, number: int, rows: int | None = None) -> Progress:
        """Where the phase stands. rows: how many source rows it has, after the first."""
        state = self._ledger.state
        return Progress(
            watermark=state.watermark,
            ended_above=tuple(sorted(state.ended_above)),
            counts=state.counts,
            before=state.phase_counts if number else Counts(),
            rows=rows,
            mark=None if number else state.mark,
        )


def _known_columns(source: pa.Schema, logics: Sequence[StepLogic]) -> pa.Schema:
    """The columns of the output whose types are known before the first row: the source's, then those of the steps."""
    fields = {field.name: field for field in source}
    for logic in logics:
        for field in logic.columns or ():
            fields[field.name] = field
    return pa.schema(list(fields.values()))


def _as_joined(known: pa.Schema, after: Sequence[Known]) -> pa.Schema:
    """The columns in the order in which joins put them: those of `from` before those of `with`."""
    order = next((columns for columns in reversed(after) if columns is not None), ())
    names = [name for name in order if name in known.names]
    return pa.schema([known.field(name) for name in dict.fromkeys((*names, *known.names))])


def _builder(known: pa.Schema, output: pa.Schema | None, last: bool, fixed: pa.Schema | None) -> TableBuilder:
    """output: what data/ has, where rows are run again: the last phase writes just that, and one before it no other
    types. fixed: what the phase has settled on before."""
    fixed = output if fixed is None and last else fixed
    return TableBuilder(known, types=output) if fixed is None else TableBuilder.from_fixed(fixed)
