"""One invocation of a run: everything it holds, put together in order and taken apart in the reverse order.

executor                    with the functions that workers can't import
source ─ schema ─ checks    nothing has been loaded yet
ledger                      the output folder is ours from here on
reader, writer              two threads, each ending what it does in an event
core, effects, driver       the loop runs
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import msgspec

from penstock.core.check import core_checks
from penstock.core.core import Core
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.events import Tick
from penstock.core.flow.limit import all_admitted
from penstock.core.shape import SourceMark
from penstock.errors import InvariantError
from penstock.executors.leftovers import end_leftovers
from penstock.faults import fault
from penstock.ledger.ledger import Ledger
from penstock.ledger.view import known_input
from penstock.planning.launches import dispatch_shape, launches_of
from penstock.planning.run_plan import RunPlan
from penstock.planning.targets import Target
from penstock.report.facts import RunFacts
from penstock.runtime.driver import Driver
from penstock.runtime.replicas.record import Record
from penstock.runtime.rows.writer import Writer
from penstock.runtime.run.effects import RunEffects
from penstock.runtime.run.observe import Observer
from penstock.runtime.run.options import CommandOptions, RunOptions
from penstock.runtime.run.phases import Phases
from penstock.runtime.run.pipeline_snapshot import note_given
from penstock.runtime.run.scope import RunScope, open_pipeline_source
from penstock.runtime.run.session import Session
from penstock.runtime.watch.log_writer import LogWriter
from penstock.runtime.watch.stalls import Stalls
from penstock.runtime.watch.watchdog import Watchdog
from penstock.spec.branches import above_joins
from penstock.spec.columns import check_columns
from penstock.spec.frozen import FrozenDict
from penstock.spec.identity import identity_diff, pipeline_identity
from penstock.spec.model import Model
from penstock.spec.pipeline import Pipeline
from penstock.steps.registry import logic_for


class Assembled(NamedTuple):
    """What lives through all phases of an invocation."""

    core: Core
    effects: RunEffects
    driver: Driver
    observer: Observer


class Invocation:
    """Entering it checks everything and opens the run; `run` drives it to its end; leaving it ends every process and
    thread that it began."""

    def __init__(
        self,
        pipeline: Pipeline,
        scope: RunScope,
        options: RunOptions,
        target: Target,
        planned: RunPlan,
        session: Session,
    ) -> None:
        self._pipeline, self._scope, self._options = pipeline, scope, options
        self._target, self._plan, self._session = target, planned, session
        self._logs = scope.out_dir / "logs"
        self._stack = ExitStack()
        self._phases: Phases | None = None
        self._observer: Observer | None = None
        self._record = Record(planned, self._logs)
        self._stalls = Stalls(self._record.note)
        self._watchdog = Watchdog(
            session.interrupts,
            self._record.log_writer,
            self._record.log,
            own_process=isinstance(options, CommandOptions),
        )

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
        pipeline, scope, nodes = self._pipeline, self._scope, self._pipeline.order()
        self._stack.callback(self._record.close)
        self._executor = self._target.executor(self._plan)
        self._stack.callback(self._executor.close)
        opened = open_pipeline_source(pipeline)
        self._stack.callback(lambda: None if self._phases is not None and self._phases.holds_source else opened.close())
        self._source = scope.source(opened)
        joined = above_joins(nodes)
        names = self._source.schema.names
        logics = [logic_for(node.step, names, above_join=node.index in joined) for node in nodes]
        check_columns(pipeline, self._source.schema.names or None)  # a source without a row has no columns to miss
        self._ledger = Ledger.open(
            scope.ledger,
            identity=pipeline_identity(pipeline),
            input_identity=self._source.identity(known_input(scope.ledger)),
            sink_format=pipeline.sink.format,
            order=pipeline.sink.order,
            diff=identity_diff,
            takeover=self._options.takeover,
            locate=self._source.locate,
            cut=scope.cut(self._plan.cut, len(nodes)),
        )
        self._stack.callback(self._ledger.close)
        self._phases = Phases(
            pipeline,
            scope,
            self._plan,
            self._ledger,
            self._source,
            logics,
            self._record,
            self._session,
            self._stalls,
        )
        self._stack.callback(self._phases.close)
        note_given(scope.ledger, self._options.given if isinstance(self._options, CommandOptions) else None)
        fault("run.opened")

    def refuse_longer(self) -> None:
        """Of a run that is complete: raises InputError where its source has more rows than it has read to the end."""
        state, proof = self._ledger.state, self._source.proof
        if proof is not None and all_admitted(state.watermark, state.total_rows, None):
            proof.refuse_longer(state.mark or SourceMark(), known_input(self._scope.ledger) or {})

    # ------------------------------------------------------------ running

    def run(self, listener: Callable[[RunFacts], None]) -> RunFacts:
        """Drive the run to its end, phase by phase; the facts at its end. Raises RunOwned, where nothing has begun."""
        self._ledger.claim()
        self._record.durable = self._ledger.state.counts
        self._record.ended_leftovers(end_leftovers(list(self._logs.glob("*.log"))))
        first = self._ledger.state.phase
        work = self._assemble(first)
        driver, effects, observer = work.driver, work.effects, work.observer
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
                self._next_phase(number, work)
            driver.run([Tick()], watch)
            turning.end()
            if effects.ended != "done":
                break
        facts = observer.facts(effects.ended)
        if effects.ended == "done" and not facts.rows_in:
            facts.warnings.append("the source has no rows: " + ", ".join(self._pipeline.source.paths[:3]))
        return facts

    def _next_phase(self, number: int, work: Assembled) -> None:
        """From the phase that has ended to the next, with the replicas that both have loaded."""
        assert self._phases is not None
        begun = self._phases.begin(number)
        before, phase = self._plan.phases[number - 1], self._plan.phases[number]
        rests = [pool for pool in before.sleep if self._can_sleep(pool, work.driver)]
        work.core.begin(begun.flow, pools=phase.pools, lazy=phase.lazy, sleep=rests, phase=number)
        work.effects.begin_phase(begun)
        work.observer.begin_phase(number, begun.estimate)

    def _can_sleep(self, pool: int, driver: Driver) -> bool:
        replicas = enumerate(self._plan.replicas)
        return all(driver.replicas.can_sleep(index) for index, replica in replicas if replica.pool == pool)

    def _assemble(self, number: int) -> Assembled:
        """Everything that lives through all phases, at the first of them that this invocation runs."""
        assert self._phases is not None
        begun, phase = self._phases.begin(number), self._plan.phases[number]
        core = Core(begun.flow, Dispatch(dispatch_shape(self._plan)), pools=phase.pools, lazy=phase.lazy, phase=number)
        writer = Writer(self._ledger, self._session.inbox, self._scope.ledger)
        writer.start()
        self._stack.callback(writer.close)
        self._stalls.add(writer.committing)
        self._stalls.add(self._watchdog.turning)
        self._stalls.start()
        self._stack.callback(self._stalls.close)
        effects = RunEffects(begun, writer, self._record, self._session.interrupts)
        driver = Driver(
            core,
            effects,
            clock=self._session.clock,
            inbox=self._session.inbox,
            executor=self._executor,
            launches=[launches_of(replica, self._logs) for replica in self._plan.replicas],
            record=self._record,
            checks=core_checks(core),
        )
        self._stack.callback(driver.close)
        self._observer = observer = Observer(
            clock=self._session.clock,
            core=core,
            replicas=driver.replicas,
            writer=writer,
            stalls=self._stalls,
            record=self._record,
            plan=self._plan,
            out_dir=str(self._scope.ledger),
            reused=self._ledger.state.counts.ended_sources,
            estimate=begun.estimate,
            phase=number,
        )
        return Assembled(core, effects, driver, observer)

    # ------------------------------------------------------------ what is left of it

    @property
    def log_writer(self) -> LogWriter:
        return self._record.log_writer

    @property
    def failure_code(self) -> int:
        """The exit code of a run that ended as failed."""
        return self._record.exit_code

    def facts(self, status: str, *, at_once: bool = False, reason: str = "") -> RunFacts | None:
        """The facts of a run that was left before its end; None where nothing had begun."""
        if self._observer is None:
            return None
        facts = self._observer.facts(status)
        return msgspec.structs.replace(facts, at_once=at_once, reason=reason or facts.reason)

    def reason_of(self, error: Exception) -> str:
        """What is shown of the exception that has ended the run. The story of a bug is long, and goes into the log."""
        if not isinstance(error, InvariantError):
            return str(error)
        self._record.log_story(str(error))
        return f"{str(error).partition(chr(10))[0]}; the last events are in {self._record.log}"

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
