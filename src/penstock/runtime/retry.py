"""Running dead rows again, and putting what becomes of them into their places.

    choose (once) ──▶ .penstock/retry-0001.json ──▶ a run of those rows in .penstock/retry-0001/ ──▶ put them in place

The inner run is an ordinary one, with a ledger, phases and resume of its own; the outer one changes in one entry, at
the end. A retry that was cut off anywhere goes on with the same command.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from penstock.data.base import Source
from penstock.errors import LedgerDamaged, UsageError
from penstock.ledger.again import Again, DeadKey, dead_of, redone_rows, standing_parts
from penstock.ledger.base import Counts, DeadRow
from penstock.ledger.entry import Entry
from penstock.ledger.files import Files
from penstock.ledger.layout import Layout
from penstock.ledger.ledger import Ledger
from penstock.ledger.manifest import Manifest
from penstock.ledger.segments import decode_schema
from penstock.ledger.view import known_input, read_run
from penstock.report.facts import RunFacts, StepFacts
from penstock.report.summary import summary
from penstock.runtime.again import Chosen, Selection, counts_without, positions_of
from penstock.runtime.api import (
    Listener,
    RunOptions,
    RunResult,
    displayed,
    drive,
    nothing_to_do,
    place_of,
    tell_summary,
)
from penstock.runtime.clock import RunClock, process_age_s
from penstock.runtime.feasible import check_feasible
from penstock.runtime.inbox import Inbox
from penstock.runtime.invocation import Invocation, RunAgain, open_pipeline_source
from penstock.runtime.signals import Interrupts
from penstock.spec.identity import identity_diff, pipeline_identity
from penstock.spec.pipeline import Pipeline

__all__ = ["retry"]


def retry(pipeline: Pipeline, options: RunOptions, codes: Collection[str] = ()) -> RunResult:
    """Run the dead rows of a finished run again: all, or those that died of one of `codes`. Blocks until it has ended.

    What succeeds is put into the output at its place (order: input) or after it (order: completion); what dies again is
    among the dead rows with its new reason. Raises as `run` does; UsageError where the run has not come to its end.
    """
    return displayed(options, partial(_retry, pipeline, options, codes))


def _retry(pipeline: Pipeline, options: RunOptions, codes: Collection[str], listener: Listener) -> RunResult:
    out_dir = Path(options.out if options.out is not None else pipeline.sink.path)
    view = read_run(out_dir)
    if not view.finished:
        raise UsageError(
            "this run has not come to its end; dead rows can be run again when it has. Continue it with the command "
            "that began it, with a higher `max_dead` if that is what ended it.",
            where=str(out_dir),
        )
    clock = RunClock(process_age_s() if options.whole_process else 0.0)
    retrying = _Retry(pipeline, options, out_dir, codes)
    if not retrying.selection.chosen:
        facts = nothing_to_do(pipeline, out_dir, clock)
        facts.warnings.append("no row died" + (f" of {', '.join(sorted(codes))}" if codes else "") + ": nothing to do")
        return RunResult(0, summary(facts), out_dir, facts)
    with closing(Inbox()) as inbox, Interrupts(inbox) as interrupts:  # until what came of it is in its place, and told
        facts, code = retrying.run(clock, view.run.cut, listener, inbox, interrupts)
        if facts.status != "done":
            return RunResult(code, summary(facts), out_dir, facts)
        before, counts = retrying.put_back()
        facts = _of_the_whole(facts, counts, len(retrying.selection.positions))
        written = summary(facts)
        written["retried"] = {
            "rows": len(retrying.selection.chosen),
            "out": counts.out - before.out,
            "dead": counts.dead - before.dead + len(retrying.selection.chosen),
        }
        return RunResult(tell_summary(out_dir, written, facts, code, needed=True), written, out_dir, facts)


_NAMING = ("source", "row", "path", "step", "code")  # columns of dead/ without the rows themselves


class _Retry:
    """One retry, begun or taken up. `selection`: what is run again, settled when it was begun."""

    def __init__(self, pipeline: Pipeline, options: RunOptions, out_dir: Path, codes: Collection[str]) -> None:
        self._pipeline, self._options, self._out_dir = pipeline, options, out_dir
        self._layout, self._files = Layout(out_dir), Files()
        source = open_pipeline_source(pipeline)
        try:
            with self._ledger(source) as ledger:
                self._entry: Entry = ledger.entry
            self._inner = self._layout.retry(self._entry.retries + 1)
            self._list = self._inner.with_suffix(".json")
            self.selection = Selection(self._settled() if self._list.exists() else self._choose(source, codes))
        finally:
            source.close()

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

    # ------------------------------------------------------------ what is run again

    def _dead(self) -> list[dict[str, Any]]:
        _, parts = standing_parts(Manifest(self._layout, self._files))
        return [row for part in parts.values() for row in dead_of(self._layout, self._files, part, list(_NAMING))]

    def _choose(self, source: Source, codes: Collection[str]) -> list[Chosen]:
        rows = [row for row in self._dead() if not codes or row["code"] in codes]
        positions = positions_of(source, {(row["source"], row["row"]) for row in rows})
        chosen = [
            Chosen(row["source"], row["row"], tuple(row["path"]), row["step"], positions[row["source"], row["row"]])
            for row in rows
        ]
        if chosen:
            staged = self._layout.staged(f"{self._list.name}.{os.getpid()}")
            self._files.write(staged, msgspec.json.encode(chosen))
            self._files.rename(staged, self._list)
            self._files.sync_folder(self._list.parent)
        return chosen

    def _settled(self) -> list[Chosen]:
        try:
            return msgspec.json.decode(self._files.read(self._list), type=list[Chosen])
        except msgspec.MsgspecError as error:
            raise LedgerDamaged(
                f"the list of rows to run again can't be read: {error}", where=str(self._list)
            ) from error

    # ------------------------------------------------------------ running them

    def run(
        self, clock: RunClock, cut: Sequence[int], listener: Listener, inbox: Inbox, interrupts: Interrupts
    ) -> tuple[RunFacts, int]:
        """Run them to their end, or take that up."""
        if self._has_ended():
            return nothing_to_do(self._pipeline, self._out_dir, clock), 0
        options = self._options
        check_feasible(self._pipeline)
        holder = f"the retry in {self._out_dir.absolute()} (process {os.getpid()})"
        again = RunAgain(self.selection, self._out_dir, self._columns())
        with closing(place_of(self._pipeline, options, holder)) as place:
            planned = place.plan(self._pipeline, cut or (len(self._pipeline.steps),))
            with Invocation(
                self._pipeline, options, self._inner, place, planned, clock, inbox, interrupts, again
            ) as invocation:
                facts, code = drive(invocation, self._inner, listener)
            listener(facts)
        return msgspec.structs.replace(facts, out_dir=str(self._out_dir)), code

    def _columns(self) -> pa.Schema | None:
        text = self._entry.schema or self._entry.data_schema
        return decode_schema(text, str(self._layout.entry(self._entry.seq))) if text else None

    def _newest(self) -> Entry | None:
        return Manifest(Layout(self._inner), self._files).newest()

    def _has_ended(self) -> bool:
        newest = self._newest()
        return newest is not None and newest.phase == read_run(self._inner).run.phases - 1

    # ------------------------------------------------------------ putting them into their places

    def put_back(self) -> tuple[Counts, Counts]:
        """Everything at once, in one entry; the run's totals before and after it."""
        source = open_pipeline_source(self._pipeline)
        try:
            with self._ledger(source) as ledger:
                if ledger.entry.retries == self._entry.retries:
                    ledger.put_again(self._outcome(ledger.entry))
                counts = ledger.entry.counts
        finally:
            source.close()
        shutil.rmtree(self._inner, ignore_errors=True)  # what is left is garbage
        self._list.unlink(missing_ok=True)
        return self._entry.counts, counts

    def _outcome(self, before: Entry) -> Again:
        inner, newest = Layout(self._inner), self._newest()
        assert newest is not None
        chosen: set[DeadKey] = {one.key for one in self.selection.chosen}
        _, parts = standing_parts(Manifest(inner, self._files))
        dead = [DeadRow(position=0, **row) for part in parts.values() for row in dead_of(inner, self._files, part)]
        left = [row for row in self._dead() if (row["source"], row["row"], tuple(row["path"])) not in chosen]
        others = {(row["source"], row["row"]) for row in left}
        nodes = self._pipeline.order()
        counts = counts_without(before.counts, self.selection, others, nodes)
        out = sum(fact.rows for fact in newest.inputs)
        again = {(row.source, row.row) for row in dead}
        counts = _sum(counts, newest.counts, out, len(again - others), len(self.selection.positions))
        return Again(chosen, redone_rows(inner, self._files, newest), dead, counts)


def _sum(counts: Counts, inner: Counts, out: int, dead_sources: int, sources: int) -> Counts:
    """The totals with those of the inner run, which finished `out` rows of so many source rows."""
    steps = dict(counts.steps)
    for name, (begun, done, dead) in inner.steps.items():
        before = steps.get(name, (0, 0, 0))
        steps[name] = (before[0] + begun, before[1] + done, before[2] + dead)
    return Counts(
        rows_in=counts.rows_in + sources,
        out=counts.out + out,
        dead=counts.dead + inner.dead,
        filtered=counts.filtered + inner.filtered,
        dead_sources=counts.dead_sources + dead_sources,
        ended_sources=counts.ended_sources + sources,
        steps=steps,
    )


def _of_the_whole(facts: RunFacts, counts: Counts, sources: int) -> RunFacts:
    """The facts of the run after a retry: its totals, and what this invocation did."""
    return msgspec.structs.replace(
        facts,
        status="done",
        total_rows=counts.rows_in,
        rows_in=counts.rows_in,
        committed=counts.ended_sources,
        ended=counts.ended_sources,
        out=counts.out,
        dead=counts.dead,
        filtered=counts.filtered,
        reused=counts.ended_sources - sources,
        steps=[StepFacts(step.name, *counts.steps.get(step.name, (0, 0, 0))) for step in facts.steps],
    )
