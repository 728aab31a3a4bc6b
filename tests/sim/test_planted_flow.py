"""Bugs planted in the flow, one at a time (see planting.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from planting import caught, planted

from penstock.core import events as ev
from penstock.core.counts import Counts
from penstock.core.flow.commits import Commits
from penstock.core.flow.families import Families
from penstock.core.flow.flow import Flow
from penstock.core.flow.graph import PhaseGraph
from penstock.core.flow.positions import Positions
from penstock.core.flow.tally import Tally
from penstock.core.shape import FlowShape, Progress

PLANTED, plant = planted()


@plant
def watermark_passes_an_open_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watermark goes one too far."""
    advance = Positions._advance

    def too_far(self: Positions) -> None:
        before = self.watermark
        advance(self)
        self.watermark += self.watermark > before

    monkeypatch.setattr(Positions, "_advance", too_far)


@plant
def commit_without_its_dead_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead rows stay behind when their batch is cut."""
    cut = Commits._cut

    def cut_without(self: Commits, **options: Any) -> ev.Commit:
        batch = cut(self, **options)
        batch.dead = batch.dead[:-1]
        return batch

    monkeypatch.setattr(Commits, "_cut", cut_without)


@plant
def published_beyond_the_watermark(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the output is broken: rows are published before an open row that precedes them."""
    publish_to = Commits._publish_to

    def beyond(self: Commits, watermark: int, **options: Any) -> int | None:
        found = publish_to(self, watermark, **options)
        above = self.positions.ended_above()
        return found if found is None or not above else above[-1] + 1

    monkeypatch.setattr(Commits, "_publish_to", beyond)


@plant
def family_closed_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source row ends although one of its children is open."""
    close = Flow._close_family

    def early(self: Flow, family: Any, step: int) -> None:
        if family.open_tasks == 1 and len(family.finished) > 1:
            family.open_tasks = 0
        close(self, family, step)

    monkeypatch.setattr(Flow, "_close_family", early)


@plant
def bytes_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a join holds is counted again when the join begins."""
    arrive = Families.arrive

    def doubled(self: Families, task: int, needed: int, size: int) -> int | None:
        held = arrive(self, task, needed, size)
        return held if held is None else held + size

    monkeypatch.setattr(Families, "arrive", doubled)


@plant
def resume_reads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a commit in flight said of the rows that were ended is said again by the next."""
    end = Commits.end

    def again(self: Commits, position: int, size_bytes: int) -> None:
        end(self, position, size_bytes)
        if position % 17 == 16 and self._out_id:
            self.ended.append(position)

    monkeypatch.setattr(Commits, "end", again)


@plant
def limit_of_dead_rows_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """max_dead is never judged."""
    monkeypatch.setattr(Tally, "too_many_dead", lambda self, *args, **options: False)


@plant
def window_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are admitted however many are open."""

    def admit(self: Flow) -> None:
        if not self.admission.reading and self.total_rows is None:
            self.admission.reading = True
            self.emit(ev.ReadRows(max_rows=self.limits.read_rows))

    monkeypatch.setattr(Flow, "_admit", admit)


@plant
def paid_results_of_families_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What children have paid for is not committed before their whole family has ended."""
    close = Flow._close_family

    def without(self: Flow, family: Any, step: int) -> None:
        held = dict(self.commits.partial)
        close(self, family, step)
        if family.open_tasks:
            self.commits.partial = held

    monkeypatch.setattr(Flow, "_close_family", without)


@plant
def paid_results_never_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that stops leaves what unfinished rows have paid for behind."""
    cut = Commits.next_batch

    def only_ended(self: Commits, now: float, *, ended: bool, final: bool) -> ev.Commit | None:
        if not self.ended:
            self.partial = {}
        return cut(self, now, ended=ended, final=final)

    monkeypatch.setattr(Commits, "next_batch", only_ended)


@plant
def dead_in_every_phase_counted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source row of which a row died in a phase before counts as dead once more."""
    read = Flow._on_rows_read

    def forgetful(self: Flow, event: ev.RowsRead) -> None:
        read(self, msgspec.structs.replace(event, already_dead=[]))

    monkeypatch.setattr(Flow, "_on_rows_read", forgetful)


@plant
def carried_rows_counted_as_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that go to a next phase are counted as output, and their source rows as ended."""
    begin = Tally.__init__

    def last(self: Tally, shape: FlowShape, progress: Progress, ended: int) -> None:
        begin(self, msgspec.structs.replace(shape, carries=False), progress, ended)

    monkeypatch.setattr(Tally, "__init__", last)


@plant
def rejected_rows_not_dead_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output rows that can't be encoded are counted as dead, their source rows are not."""
    rejected = Tally.rejected

    def forgetful(self: Tally, moved: Counts) -> None:
        rejected(self, msgspec.structs.replace(moved, dead_sources=0))

    monkeypatch.setattr(Tally, "rejected", forgetful)


@plant
def rejected_source_rows_never_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source row of which nothing goes to the next phase, since no column holds it, is not counted as ended."""
    rejected = Tally.rejected

    def forgetful(self: Tally, moved: Counts) -> None:
        rejected(self, msgspec.structs.replace(moved, ended_sources=0))

    monkeypatch.setattr(Tally, "rejected", forgetful)


@plant
def rows_of_a_phase_before_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was read together, the second row is begun twice, and the first never."""
    begin = Flow._begin_at

    def shifted(self: Flow, steps: list[int], row: int, size: int) -> None:
        family = self.families.of_row(row)
        first = family is not None and not family.open_tasks and row in family.children and steps is self.graph.entries
        begin(self, steps, row + 1 if first else row, size)

    monkeypatch.setattr(Flow, "_begin_at", shifted)


@plant
def finished_at_the_first_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of a phase that ends inside of branches is taken when the first branch is through."""
    finish = Flow._finish

    def early(self: Flow, family: Any, row: int, size: int) -> None:
        if row in family.finished:
            self.open_bytes -= size
            return
        exits, self.graph.exits = self.graph.exits, self.graph.exits[:1]
        finish(self, family, row, size)
        self.graph.exits = exits

    monkeypatch.setattr(Flow, "_finish", early)


@plant
def figures_of_other_branches_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that ends in one branch counts in the steps of the other as well."""
    passed = PhaseGraph.passed

    def all_branches(self: PhaseGraph, made_by: int | None, step: int | None) -> Sequence[int]:
        found = passed(self, made_by, step)
        return found if step is None or self.is_chain else [at for at in self.here if at < step]

    monkeypatch.setattr(PhaseGraph, "passed", all_branches)


@plant
def a_join_of_a_row_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for the other branches of a row stays when the row ends in one of them."""
    monkeypatch.setattr(Families, "forget", lambda self, row: 0)


@plant
def branches_go_on_without_their_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other branches of a row that has ended are not cancelled."""
    monkeypatch.setattr(Flow, "_cancel_branches", lambda self, row, family: None)


@plant
def a_late_end_of_a_cancelled_task_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a task that crossed with its cancellation is taken as that of an open one."""
    cancel = Flow._cancel_branches

    def forgotten(self: Flow, row: int, family: Any) -> None:
        cancel(self, row, family)
        self._cancelled.clear()

    monkeypatch.setattr(Flow, "_cancel_branches", forgotten)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    caught(name)
