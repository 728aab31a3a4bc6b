"""One invocation of a run: everything it holds, put together in order and taken apart in the reverse order.

nursery ─ executor          before any thread starts, since functions travel by fork
source ─ schema ─ checks    nothing has been loaded yet
ledger                      the output folder is ours from here on
reader, writer              two threads, each ending what it does in an event
core, shell                 the loop runs
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pyarrow as pa

from penstock.core.core import Core
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.flow.flow import Flow
from penstock.core.flow.limit import admission_ends, all_admitted
from penstock.core.shape import (
    FlowLimits,
    FlowShape,
    Progress,
    SourceMark,
    StepShape,
)
from penstock.data.base import Source
from penstock.data.columns import TableBuilder
from penstock.data.open import open_rows, open_source
from penstock.executors.leftovers import end_leftovers
from penstock.faults import fault
from penstock.ledger.base import Counts
from penstock.ledger.ledger import Ledger
from penstock.ledger.view import known_input
from penstock.planning.launches import dispatch_shape, launches_of
from penstock.planning.phases import PhasePlan
from penstock.planning.run_plan import RunPlan
from penstock.planning.targets import Place
from penstock.report.facts import RunFacts
from penstock.runtime.inbox import Inbox
from penstock.runtime.replicas.record import Record
from penstock.runtime.retry.scope import ChosenSource, Selection
from penstock.runtime.rows.reader import Reader
from penstock.runtime.rows.store import RowStore
from penstock.runtime.rows.tasks import Tasks
from penstock.runtime.rows.totals import Totals
from penstock.runtime.rows.writer import Writer
from penstock.runtime.run.observe import Observer
from penstock.runtime.run.pipeline_snapshot import note_given
from penstock.runtime.run.run import run_phase
from penstock.runtime.run.shell import Phase, Shell
from penstock.runtime.watch.clock import RunClock
from penstock.runtime.watch.log_writer import LogWriter
from penstock.runtime.watch.signals import Interrupts
from penstock.runtime.watch.stalls import Stalls
from penstock.runtime.watch.watchdog import Watchdog
from penstock.spec.columns import check_columns
from penstock.spec.frozen import FrozenDict
from penstock.spec.identity import identity_diff, pipeline_identity
from penstock.spec.model import Model
from penstock.spec.pipeline import Pipeline
from penstock.steps.base import StepLogic
from penstock.steps.registry import logic_for

if TYPE_CHECKING:
    from penstock.runtime.run.api import RunOptions


class Begun(NamedTuple):
    """A phase that is ready to run."""

    flow: Flow
    parts: Phase
    estimate: Callable[[], int | None]


class RunAgain(NamedTuple):
    """That only chosen rows of the run in `out_dir` are run, into a ledger of their own. columns: of its output; mark:
    what it has read of the source."""

    selection: Selection
    out_dir: Path
    columns: pa.Schema | None
    mark: SourceMark | None


def cut_for_retry(cut: Sequence[int], steps: int) -> tuple[int, ...]:
    """The phases of a run over chosen rows: those of the run, and one that never begins. So what the last of them
    finishes stays in segments, with its keys."""
    return (*(cut or (steps,)), steps)


WINDOW_ROWS_PER_REPLICA = 2_048  # twice what the engines with the most sequences hold


class Invocation:
    """Entering it checks everything and opens the run; `run` drives it to its end; leaving it ends every process and
    thread that it began."""

    def __init__(
        self,
        pipeline: Pipeline,
        options: RunOptions,
        out_dir: Path,
        place: Place,
        planned: RunPlan,
        clock: RunClock,
        inbox: Inbox,
        interrupts: Interrupts,
        again: RunAgain | None = None,
    ) -> None:
        self._again = again
        self._logs = (out_dir if again is None else again.out_dir) / "logs"
        self._pipeline, self._options, self._out_dir = pipeline, options, out_dir
        self._place, self._plan, self._clock = place, planned, clock
        self._inbox, self._interrupts = inbox, interrupts
        self._nodes = pipeline.order()
        self._names = [node.name for node in self._nodes]
        self._stack = ExitStack()
        self._observer: Observer | None = None
        self._reader: Reader | None = None
        self._record = Record(planned, self._logs)
        self._stalls = Stalls(self._record.note)
        self._watchdog = Watchdog(
            interrupts, self._record.log_writer, self._record.log, own_process=options.whole_process
        )
        self._phase_stack = ExitStack()

    def __enter__(self) -> Invocation:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        with self._watchdog.closing():
            self._stack.close()

    def _open(self) -> None:
        pipeline = self._pipeline
        self._stack.callback(self._record.close)
        self._executor = self._place.executor(self._plan)
        self._stack.callback(self._executor.close)
        opened = open_pipeline_source(pipeline)
        self._stack.callback(self._close_source, opened)
        self._source = opened if self._again is None else ChosenSource(opened, self._again.selection.positions)
        self._logics = [logic_for(node.step, self._source.schema.names) for node in self._nodes]
        check_columns(pipeline, self._source.schema.names or None)  # a source without a row has no columns to miss
        self._ledger = Ledger.open(
            self._out_dir,
            identity=pipeline_identity(pipeline),
            input_identity=self._source.identity(known_input(self._out_dir)),
            sink_format=pipeline.sink.format,
            order=pipeline.sink.order,
            diff=identity_diff,
            takeover=self._options.takeover,
            locate=self._source.locate,
            cut=self._plan.cut if self._again is None else cut_for_retry(self._plan.cut, len(self._nodes)),
        )
        self._stack.callback(self._ledger.close)
        note_given(self._out_dir, self._options.given)
        fault("run.opened")

    def refuse_longer(self) -> None:
        """Of a run that is complete: raises InputError where its source has more rows than it has read to the end."""
        state, proof = self._ledger.state, self._source.proof
        if proof is not None and all_admitted(state.watermark, state.total_rows, None):
            proof.refuse_longer(state.mark or SourceMark(), known_input(self._out_dir) or {})

    # ------------------------------------------------------------ running

    def run(self, listener: Callable[[RunFacts], None]) -> RunFacts:
        """Drive the run to its end, phase by phase; the facts at its end. Raises RunOwned, where nothing has begun."""
        self._ledger.claim()
        self._record.ended_leftovers(end_leftovers(list(self._logs.glob("*.log"))))
        first = self._ledger.state.phase
        core, shell, observer = self._assemble(self._begin(first))
        fault("run.assembled")
        interval_s, shown_at = self._options.interval_s, -1.0

        turning, watched = self._watchdog.turning, self._options.listener is not None

        def watch(now: float) -> None:
            nonlocal shown_at
            turning.begin()
            if now - shown_at >= interval_s:
                shown_at = now
                if not watched:
                    turning.end()  # a terminal that is paused (Ctrl-S) pauses the run
                listener(observer.facts())
                turning.begin()

        for number in range(first, len(self._plan.phases)):
            if number > first:
                self._go_on(number, core, shell, observer)
            status = run_phase(core, shell, self._clock, watch)
            turning.end()
            if status != "done":
                break
        facts = observer.facts(status)
        if status == "done" and not facts.rows_in:
            facts.warnings.append("the source has no rows: " + ", ".join(self._pipeline.source.paths[:3]))
        return facts

    def _go_on(self, number: int, core: Core, shell: Shell, observer: Observer) -> None:
        """From the phase that has ended to the next, with the replicas that both have loaded."""
        self._phase_stack.close()
        begun = self._begin(number)
        before, phase = self._plan.phases[number - 1], self._plan.phases[number]
        rests = [pool for pool in before.sleep if self._can_sleep(pool, shell)]
        core.begin(begun.flow, pools=phase.pools, lazy=phase.lazy, sleep=rests, phase=number)
        shell.begin_phase(begun.parts)
        observer.begin_phase(number, begun.estimate)

    def _can_sleep(self, pool: int, shell: Shell) -> bool:
        return all(
            shell.replicas.can_sleep(index) for index, replica in enumerate(self._plan.replicas) if replica.pool == pool
        )

    def _close_source(self, source: Source) -> None:
        if self._reader is None or not self._reader.holds_source:  # else closing would wait for what hangs
            source.close()

    @property
    def log_writer(self) -> LogWriter:
        return self._record.log_writer

    @property
    def failure_code(self) -> int:
        """The exit code of a run that ended as failed."""
        return self._record.exit_code

    def wider_model(self) -> Pipeline | None:
        """The pipeline with twice the tensor parallelism for a model whose replicas ran out of memory at every step
        down, where that can be: the last rung of its ladder. None: there is nothing left to try."""
        changed: dict[str, Model] = {}
        for index in sorted(self._record.out_of_memory):
            rungs = next((replica.rungs for replica in self._plan.replicas if replica.pool == index), ())
            if not rungs or rungs[-1].tensor_parallel is None:
                return None
            for name in self._plan.pools[index].names:
                model = self._pipeline.models[name]
                changed[name] = model.model_copy(update={"tensor_parallel": rungs[-1].tensor_parallel})
        if not changed:
            return None
        return self._pipeline.model_copy(update={"models": FrozenDict({**self._pipeline.models, **changed})})

    def facts(self, status: str, *, at_once: bool = False, reason: str = "") -> RunFacts | None:
        """The facts of a run that was left before its end; None where nothing had begun."""
        if self._observer is None:
            return None
        facts = self._observer.facts(status)
        return msgspec.structs.replace(facts, at_once=at_once, reason=reason or facts.reason)

    def _begin(self, number: int) -> Begun:
        """What belongs to a phase: its source, its reader, its flow, the rows that it holds."""
        self._phase_stack = ExitStack()
        self._stack.callback(self._phase_stack.close)
        self._interrupts.repeat()
        phase, ledger = self._plan.phases[number], self._ledger
        source = ledger.inputs() if number else self._source
        known = _known_columns(source.schema, self._logics[phase.begin : phase.end])
        types = None if self._again is None else self._again.columns
        ledger.begin_phase(partial(_builder, known, types, phase.end == len(self._nodes)))
        state = ledger.state
        limits = self._limits(source.total_rows if number else None)
        self._note_limit(limits.source_rows)
        flow = Flow(self._flow_shape(limits, phase), self._progress(number), self._clock.now())
        in_phases = ledger.phases > 1
        totals = Totals(
            state.counts,
            flow.tally.counts(),
            self._names,
            first=number == 0,
            carries=number < ledger.phases - 1,
        )
        store = RowStore(source, in_phases=in_phases)
        tasks = Tasks(
            self._nodes,
            self._logics,
            self._plan.pool_of_step,
            store,
            self._record,
            self._pipeline.seed,
            ledger.paid(),
            None if self._again is None else self._again.selection,
        )
        mark = state.mark if self._again is None else self._again.mark or state.mark
        reader = Reader(source, self._inbox, state.watermark, state.ended_above, limits.read_rows, mark)
        reader.start()
        self._reader = reader
        self._phase_stack.callback(reader.close)
        for activity in (reader.reading, reader.finding):
            self._stalls.add(activity)
            self._phase_stack.callback(self._stalls.remove, activity)
        estimate = source.estimate_rows if number else self._estimate_rows
        return Begun(flow, Phase(reader, store, tasks, totals), estimate)

    def _assemble(self, begun: Begun) -> tuple[Core, Shell, Observer]:
        number = self._ledger.state.phase
        phase = self._plan.phases[number]
        core = Core(begun.flow, Dispatch(dispatch_shape(self._plan)), pools=phase.pools, lazy=phase.lazy, phase=number)
        writer = Writer(self._ledger, self._inbox, self._out_dir)
        writer.start()
        self._stack.callback(writer.close)
        self._stalls.add(writer.committing)
        self._stalls.add(self._watchdog.turning)
        self._stalls.start()
        self._stack.callback(self._stalls.close)
        shell = Shell(
            clock=self._clock,
            inbox=self._inbox,
            interrupts=self._interrupts,
            executor=self._executor,
            launches=[launches_of(replica, self._logs) for replica in self._plan.replicas],
            writer=writer,
            record=self._record,
            phase=begun.parts,
        )
        self._stack.callback(shell.close)
        self._observer = observer = Observer(
            clock=self._clock,
            core=core,
            shell=shell,
            writer=writer,
            stalls=self._stalls,
            record=self._record,
            plan=self._plan,
            out_dir=str(self._out_dir),
            reused=self._ledger.state.counts.ended_sources,
            estimate=begun.estimate,
            phase=number,
        )
        return core, shell, observer

    def _estimate_rows(self) -> int | None:
        """Rows that this invocation will have seen at its end, as far as that can be told."""
        known, limit = self._source.estimate_rows(), self._options.limit
        return limit if known is None else known if limit is None else min(known, limit)

    def _limits(self, rows_of_phase: int | None) -> FlowLimits:
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
            max_dead=self._max_dead(rows_of_phase),
            source_rows=self._options.limit if rows_of_phase is None and self._again is None else None,
        )

    def _note_limit(self, limit: int | None) -> None:
        """Say why more rows are taken in than were asked for."""
        ends = admission_ends(limit, self._progress(0))
        if ends is not None and limit is not None and ends > max(limit, self._ledger.state.watermark):
            self._record.note(
                f"--limit {limit}: an earlier invocation has finished rows up to row {ends - 1}, so that those before "
                "it are completed as well; otherwise the output would have gaps"
            )

    def _max_dead(self, rows_of_phase: int | None) -> int | float:
        """How many may still die in a later phase, as a count or as a share of the rows that it has."""
        allowed, before = self._pipeline.max_dead, self._ledger.state.phase_counts
        if self._again is not None:
            return 1.0  # they were counted when they died first
        if rows_of_phase is None:
            return allowed
        if isinstance(allowed, int):
            return max(0, allowed - before.dead_sources)
        return max(0.0, allowed * before.rows_in - before.dead_sources) / max(1, rows_of_phase)

    def _flow_shape(self, limits: FlowLimits, phase: PhasePlan) -> FlowShape:
        steps = tuple(
            StepShape(node.name, node.after, logic.pool is not None)
            for node, logic in zip(self._nodes, self._logics, strict=True)
        )
        carries = phase.end < len(self._nodes) or self._again is not None
        ordered = carries or self._pipeline.sink.order == "input"
        return FlowShape(steps, limits, ordered=ordered, begin=phase.begin, end=phase.end)

    def _progress(self, number: int) -> Progress:
        """Where the phase stands. After the first, its flow counts the dead of its own rows only."""
        state = self._ledger.state
        counts, before = state.counts, state.phase_counts if number else Counts()
        return Progress(
            watermark=state.watermark,
            ended_above=tuple(sorted(state.ended_above)),
            out=counts.out,
            dead=counts.dead - before.dead,
            filtered=counts.filtered - before.filtered,
            dead_sources=counts.dead_sources - before.dead_sources,
            steps=tuple(counts.steps.get(name, (0, 0, 0)) for name in self._names),
            mark=None if number else state.mark,
        )


def _known_columns(source: pa.Schema, logics: Sequence[StepLogic]) -> pa.Schema:
    """The columns of the output whose types are known before the first row: the source's, then those of the steps."""
    fields = {field.name: field for field in source}
    for logic in logics:
        for field in logic.columns or ():
            fields[field.name] = field
    return pa.schema(list(fields.values()))


def _builder(known: pa.Schema, output: pa.Schema | None, last: bool, fixed: pa.Schema | None) -> TableBuilder:
    """output: what data/ has, where rows are run again: the last phase writes just that, and one before it no other
    types. fixed: what the phase has settled on before."""
    fixed = output if fixed is None and last else fixed
    return TableBuilder(known, types=output) if fixed is None else TableBuilder.from_fixed(fixed)


def open_pipeline_source(pipeline: Pipeline) -> Source:
    """Raises InputError, ConfigError."""
    source = pipeline.source
    if source.rows is not None:
        return open_rows([dict(row) for row in source.rows])
    return open_source(source.paths, source.format, source.column_types)
