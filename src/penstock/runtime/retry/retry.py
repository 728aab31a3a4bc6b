"""Retrying dead rows and inserting the results in their place.

    choose (once) ──▶ .penstock/retry-0001.json ──▶ a run of those rows in .penstock/retry-0001/ ──▶ put them in place

The inner run is an ordinary one, with a ledger, phases and resume of its own; the outer one changes in one entry, at
the end. A retry that was cut off anywhere is continued by the same command. A retry of other codes that has not ended
is completed first.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec

from penstock.core.counts import Counts
from penstock.data.base import Source
from penstock.errors import DEAD_CODES, ExitCode, RunOwned, UsageError
from penstock.ledger.ledger import Ledger
from penstock.ledger.retry import Key
from penstock.ledger.view import RunView, known_input, read_run
from penstock.planning.preflight import check_feasible
from penstock.report.facts import RunFacts, figures
from penstock.report.summary import summary
from penstock.runtime.retry.scope import Selection, counted_before
from penstock.runtime.run.api import displayed, drive, nothing_to_do, returned_or_raised, store_summary, target_of
from penstock.runtime.run.invocation import Invocation
from penstock.runtime.run.options import CommandOptions, Listener, RunOptions, RunResult
from penstock.runtime.run.scope import RunScope, open_pipeline_source
from penstock.runtime.run.session import Session, session
from penstock.spec.identity import identity_diff, pipeline_identity
from penstock.spec.pipeline import Pipeline, expect_pipeline
from penstock.spec.problems import suggestion
from penstock.units import noun

__all__ = ["retry"]


def retry(pipeline: Pipeline, options: RunOptions | None = None, codes: Collection[str] = ()) -> RunResult:
    """Retry the dead rows of a finished run: all, or those with one of `codes` (docs/dead-rows.md). Blocks until the
    retry has ended. `codes` may be a single code.

    Rows that succeed are inserted into the output in their place (order: input) or at the end (order: completion);
    rows that fail again stay dead, with the new reason. Raises as `run`; UsageError if the run has not finished.
    """
    options = RunOptions.checked(options)
    codes = [codes] if isinstance(codes, str) else codes
    for code in codes:
        if code not in DEAD_CODES:
            raise UsageError(f"unknown code {code!r}{suggestion(str(code), DEAD_CODES)}", where="retry")
    return returned_or_raised(
        options, displayed(options, partial(_retry, expect_pipeline(pipeline, "retry"), options, codes))
    )


def _retry(pipeline: Pipeline, options: RunOptions, codes: Collection[str], listener: Listener) -> RunResult:
    out_dir = Path(options.out if options.out is not None else pipeline.sink.path)
    cut = _finished(out_dir).run.cut
    retrying = _Retry(pipeline, options, out_dir, cut, codes)
    with session(
        whole_process=isinstance(options, CommandOptions)
    ) as lent:  # until what came of it is in its place, and reported
        if not retrying.selection.chosen:
            facts = nothing_to_do(pipeline, out_dir, lent.clock)
            facts.warnings.append(f"no dead rows{_of(codes)}")
            written = summary(facts)  # of a retry that was killed after its commit it is not written yet
            code = store_summary(out_dir, written, facts, ExitCode.DONE, needed=False)
            return RunResult(code, written, out_dir, facts)
        result = retrying.run_to_its_end(lent, listener)
        if not retrying.begun or result.facts.status != "done":
            return result
        rest = _Retry(pipeline, options, out_dir, cut, codes, done=retrying.selection.keys)
        if not rest.selection.chosen:
            return result
        if lent.interrupts.asked:
            left = noun(len(rest.selection.chosen), "other dead row")
            facts = msgspec.structs.replace(result.facts, status="stopped", reason=f"{left} to retry")
            written = summary(facts) | {"retried": result.summary["retried"]}
            code = store_summary(out_dir, written, facts, ExitCode.STOPPED, needed=True)
            return RunResult(code, written, out_dir, facts)
        return rest.run_to_its_end(lent, listener, after=result)


def _finished(out_dir: Path) -> RunView:
    """The run, which must have finished."""
    view = read_run(out_dir)
    if not view.finished:
        raise UsageError(
            "this run has not finished; dead rows can be retried once it has. Continue it with the command "
            "that started it, with a higher `max_dead` if that limit ended it.",
            where=str(out_dir),
        )
    return view


def _of(codes: Collection[str]) -> str:
    return f" with code {', '.join(sorted(codes))}" if codes else ""


_KEPT = "The results of the retry are kept: once the run has finished, run the same `penstock retry` to commit them."


class _Retry:
    """One retry, begun or continued. `selection`: what is run again, settled when it was begun. `begun`: names a retry
    that was begun before, and is not the one that is asked for; else "". done: rows to leave out."""

    def __init__(
        self,
        pipeline: Pipeline,
        options: RunOptions,
        out_dir: Path,
        cut: Sequence[int],
        codes: Collection[str],
        *,
        done: Collection[Key] = (),
    ) -> None:
        self._pipeline, self._options, self._out_dir, self._cut = pipeline, options, out_dir, cut
        source = open_pipeline_source(pipeline)
        try:
            with self._ledger(source) as ledger:
                self._retry = ledger.retry(source, codes, without=done, takeover=options.takeover)
        finally:
            source.close()
        self.selection = Selection(self._retry.chosen)
        another = self._retry.codes != sorted(set(codes))
        self.begun = f"the retry{_of(self._retry.codes or ())} that was started before" if another else ""

    def _ledger(self, source: Source) -> Ledger:
        """The run's own; opening it compares the pipeline and the input with those that it was made of."""
        sink = self._pipeline.sink
        return Ledger.open(
            self._out_dir,
            identity=pipeline_identity(self._pipeline),
            input_identity=source.identity(known_input(self._out_dir)),
            sink_format=sink.format,
            order=sink.order,
            diff=identity_diff,
            takeover=self._options.takeover,
        )

    # ------------------------------------------------------------ running them

    def run_to_its_end(self, lent: Session, listener: Listener, after: RunResult | None = None) -> RunResult:
        """Run them and put them in their places. after: what the same command has run again before."""
        facts, code = self._run(lent, listener)
        warnings = list(after.facts.warnings) if after is not None else []
        if self.begun:
            rows = noun(len(self.selection.chosen), "dead row")
            warnings.append(
                f"{self.begun}, with {rows}, was completed first"
                if facts.status == "done"
                else f"this continues {self.begun}, with {rows}; the other requested rows follow it"
            )
        facts = msgspec.structs.replace(facts, warnings=[*warnings, *facts.warnings])
        if facts.status != "done":
            return RunResult(code, summary(facts), self._out_dir, facts)
        came = self._retry.counts()
        facts = _of_the_whole(facts, self._put_back(), came.rows_in)
        before = after.summary["retried"] if after is not None else {"rows": 0, "out": 0, "dead": 0}
        written = summary(facts)
        written["retried"] = {
            "rows": before["rows"] + len(self.selection.chosen),
            "out": before["out"] + came.out,
            "dead": before["dead"] + came.dead,
        }
        code = store_summary(self._out_dir, written, facts, code, needed=True)
        return RunResult(code, written, self._out_dir, facts)

    def _run(self, lent: Session, listener: Listener) -> tuple[RunFacts, int]:
        if self._retry.has_ended():
            return nothing_to_do(self._pipeline, self._out_dir, lent.clock), 0
        options = self._options
        check_feasible(self._pipeline)
        holder = f"the retry in {self._out_dir.absolute()} (process {os.getpid()})"
        # Their deaths count nothing against max_dead: they were counted when they died first.
        retry = self._retry
        scope = RunScope(retry.folder, self._out_dir, None, 1.0, self.selection, retry.columns, retry.mark)
        with closing(target_of(self._pipeline, options, holder)) as target:
            planned = target.plan(self._pipeline, self._cut or (len(self._pipeline.steps),))
            with Invocation(self._pipeline, scope, options, target, planned, lent) as invocation:
                facts, code = drive(invocation, retry.folder, listener)
            listener(facts)
        return msgspec.structs.replace(facts, out_dir=str(self._out_dir)), code

    # ------------------------------------------------------------ putting them into their places

    def _put_back(self) -> Counts:
        """Everything at once, in one entry; the run's totals after it. Raises UsageError or RunOwned where the run was
        continued meanwhile, and has not finished."""
        counted = counted_before(self.selection, self._pipeline.order(), self._cut)
        source = open_pipeline_source(self._pipeline)
        try:
            self._refuse_continued(read_run(self._out_dir).finished)
            with self._ledger(source) as ledger:
                self._refuse_continued(ledger.state.finished)
                return ledger.put_back(self._retry, source, counted)
        except RunOwned as owned:
            raise RunOwned(f"{owned.message} {_KEPT}", where=owned.where) from None
        finally:
            source.close()

    def _refuse_continued(self, finished: bool) -> None:
        """Its counts and parts are those of a run under way; a commit of it and ours must not meet."""
        if not finished:
            raise UsageError(
                f"the run was resumed while its dead rows were retried, and has not finished. {_KEPT}",
                where=str(self._out_dir),
            )


def _of_the_whole(facts: RunFacts, counts: Counts, sources: int) -> RunFacts:
    """The facts of the run after a retry: its totals, and what this invocation did."""
    return msgspec.structs.replace(
        facts,
        status="done",
        total_rows=counts.rows_in,
        committed=counts.ended_sources,
        reused=counts.ended_sources - sources,
        **figures(counts),
    )
