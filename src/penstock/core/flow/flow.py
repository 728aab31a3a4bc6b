"""Flow: moves rows through the steps of one phase, from the source to a durable end.

A task (a row at a step) is in exactly one state, and leaves `open` exactly once:

    (not begun) ──StartTasks──▶ open ──TasksDone──────▶ done       the next step's task begins, or the row is finished
                                     ──TasksFiltered──▶ filtered   the row ends without output
                                     ──TaskExpanded───▶ expanded   children take the row's place
                                     ──TasksDead──────▶ dead       the row ends in the dead-letter table
                                     ──CancelTasks────▶ cancelled  the row ended in another branch

A source row has ended when nothing below it is open. In a later phase a source row is what the phase before has left of
it: a row, or several, which are a family from the start. Ended rows wait for the next Commit; only then do they count.

Invariants (`check.py`): every admitted source position is open, in a family, or ended and waiting, and in one of them
only; the bytes counted equal the sum over what is held; the watermark never passes a position that has not ended.
"""

from __future__ import annotations

from penstock.core import events as ev
from penstock.core.events import CHILD_BASE
from penstock.core.flow.admission import Admission
from penstock.core.flow.begun import Begun
from penstock.core.flow.commits import Commits
from penstock.core.flow.families import Families, Family, at_the_end
from penstock.core.flow.graph import PhaseGraph
from penstock.core.flow.tally import Tally
from penstock.core.machine import StateMachine
from penstock.core.shape import DEAD_ROW_BYTES, FlowShape, Progress


class Flow(StateMachine):
    """`handle(events, now)` with the events of the flow; see core/events.py for both languages."""

    name = "flow"

    def __init__(self, shape: FlowShape, progress: Progress, now: float) -> None:
        super().__init__()
        self.shape = shape
        self.limits = shape.limits
        self._steps = len(shape.steps)
        self.graph = graph = PhaseGraph(shape)
        self._following, self._chain = graph.following, graph.is_chain
        self._paid = [step.paid for step in shape.steps]
        self.commits = Commits(shape.limits, progress, now, ordered=shape.ordered)
        self.tally = Tally(shape, progress, self.commits.positions.ended_count)
        self.families = Families(self._steps)
        self.open: dict[int, int] = {}  # task -> bytes of its row
        self._dead_before: set[int] = set()  # open positions whose source rows died in a phase before
        self.open_bytes = 0  # of open tasks, and of what families and joins hold
        self.begun = Begun(self._steps)
        self._next_child = CHILD_BASE
        self.admission = Admission(shape.limits, progress)
        self.stopping = ""  # the status that the phase will end with, once it may not run on
        self._drained = False
        self.status = ""  # the status that it ended with
        self._cancelled: set[int] = set()  # whose end may still come, since it crossed with their CancelTasks
        self._handlers = {
            ev.RowsRead: self._on_rows_read,
            ev.SourceEnded: self._on_source_ended,
            ev.TasksDone: self._on_tasks_done,
            ev.TasksFiltered: lambda event: self._end_rows_early(event.tasks, dead=False),
            ev.TaskExpanded: self._on_task_expanded,
            ev.TasksDead: lambda event: self._end_rows_early(event.tasks, dead=True),
            ev.Committed: self._on_committed,
            ev.StopRequested: self._on_stop_requested,
            ev.DispatchDrained: self._on_drained,
            ev.TasksCancelled: lambda event: self._cancelled.difference_update(event.tasks),
            ev.Tick: lambda tick: None,  # commits that are due are begun by _settle
        }

    @property
    def total_rows(self) -> int | None:
        """Positions of the source (or those that the limit admits), once no more rows will come."""
        return self.admission.total_rows

    # ------------------------------------------------------------ rows come in

    def _on_rows_read(self, event: ev.RowsRead) -> None:
        self.admission.came(event)
        self.tally.read += len(event.rows) + len(event.unreadable) + len(event.families)
        # It ends like a row: the watermark would stand before it for ever.
        for position in event.unreadable:
            self.tally.unreadable()
            self.commits.end(position, 0)
            self.commits.dead.append(position)
        # Until their batch is cut: a source row is dead once, in however many phases its rows die.
        self._dead_before.update(event.already_dead)
        for position, sizes in event.families:
            self.families.of_root(position)
            first = self._adopt(position, len(sizes))
            self.emit(ev.AdoptFamily(position=position, first_row=first, count=len(sizes)))
            for row, size in enumerate(sizes, first):
                self._begin_at(self.graph.entries, row, size)
        if self._chain:
            self._admit_chain(event.rows, event.sizes_bytes)
            return
        for row, size in zip(event.rows, event.sizes_bytes, strict=True):
            self.families.of_root(row)
            self._begin_at(self.graph.entries, row, size)

    def _admit_chain(self, rows: list[int], sizes: list[int]) -> None:
        entry = self.graph.entries[0]
        steps, is_open = self._steps, self.open
        tasks = [row * steps + entry for row in rows]
        # Compared once a read: a look-up for each row would cost as much as its admission.
        expected = len(is_open) + len(tasks)
        is_open.update(zip(tasks, sizes, strict=True))
        if len(is_open) != expected:
            raise self.broken(f"a row was admitted twice, among {rows[:3]}...")
        self.open_bytes += sum(sizes)
        begun_tasks, begun_orders = self.begun.of_step[entry]
        begun_tasks.extend(tasks)
        begun_orders.extend(rows)

    def _on_source_ended(self, event: ev.SourceEnded) -> None:
        if self.admission.ended(event):
            self.emit(ev.SourceExhausted())

    # ------------------------------------------------------------ tasks begin

    def _begin_at(self, steps: list[int], row: int, size: int) -> None:
        """Begin the task of `row` at each of `steps` (a join: once all its results are in). Bytes go with the first."""
        for step in steps:
            task = row * self._steps + step
            needed = len(self.graph.after[step])
            self.open_bytes += size
            if needed > 1:
                held = self.families.arrive(task, needed, size)
                if held is None:
                    size = 0
                    continue
                size += held
            self._open_task(task, row, step, size)
            size = 0

    def _open_task(self, task: int, row: int, step: int, size: int) -> None:
        """`size` is counted in open_bytes already."""
        # Begun twice it would be asked for and paid twice, and its first answer would end the row under the second.
        if task in self.open:
            raise self.broken(f"task {task} began twice", task)
        self.open[task] = size
        root = self.families.root_of.get(row, row)
        family = self.families.by_root.get(root)
        if family is not None:
            family.open_tasks += 1
        tasks, orders = self.begun.of_step[step]
        tasks.append(task)
        orders.append(root)

    def _close_task(self, task: int, family: Family | None) -> int:
        """Take `task` out of `open`; its bytes stay counted until its row ends."""
        size = self.open.pop(task, None)
        if size is None:
            raise self.broken(f"task {task} ended, but it is not open", task)
        if family is not None:
            family.open_tasks -= 1
        return size

    # ------------------------------------------------------------ tasks end

    def _on_tasks_done(self, event: ev.TasksDone) -> None:
        if self._chain and not self.families.by_root:
            self._done_in_chain(event.tasks, event.growth_bytes)
            return
        for task, growth in zip(event.tasks, event.growth_bytes, strict=True):
            # It crossed with its CancelTasks, and the row has ended without it.
            if task in self._cancelled:
                continue
            row, step = divmod(task, self._steps)
            family = self.families.of_row(row)
            size = self._close_task(task, family) + growth
            self.open_bytes += growth
            following = self._following[step]
            if following:
                # Only where the row continues: the result of its last step is durable with the row itself.
                if family is None and self._paid[step]:
                    self.commits.partial[row] = None
                self.open_bytes -= size  # counted again where the row continues
                self._begin_at(following, row, size)
            elif family is None:
                self.open_bytes -= size
                self.tally.finished(1)
                self.commits.finished.append(row)
                self.commits.end(row, size)
            else:
                self._finish(family, row, size)
            if family is not None:
                self._close_family(family, step)

    def _finish(self, family: Family, row: int, size: int) -> None:
        """A row of a family has passed an exit of the phase. It is finished, and may be taken, with the last of them:
        a phase may end before its branches are joined."""
        needed = len(self.graph.exits)
        if needed > 1:
            held = self.families.arrive(at_the_end(row), needed, size)
            if held is None:
                return
            size += held
        # Not committed yet: a family is committed as a whole, so that a resume never finds a part of it done.
        family.finished.append(row)
        family.bytes += size
        family.passed(self.graph.passed(self.families.made_by.get(row), None))

    def _done_in_chain(self, tasks: list[int], growths: list[int]) -> None:
        """The common case, one loop: every row is its own family, every step has one successor or none."""
        steps, is_open, following, paid = self._steps, self.open, self._following, self._paid
        partial = self.commits.partial
        finished = self.commits.finished
        growth_bytes = finished_bytes = 0
        before = len(finished)
        for task, growth in zip(tasks, growths, strict=True):
            size = is_open.pop(task, None)
            if size is None:
                raise self.broken(f"task {task} ended, but it is not open", task)
            row, step = divmod(task, steps)
            growth_bytes += growth
            if following[step]:
                then = following[step][0]
                task += then - step
                is_open[task] = size + growth
                begun_tasks, begun_orders = self.begun.of_step[then]
                begun_tasks.append(task)
                begun_orders.append(row)
                if paid[step]:
                    partial[row] = None
            else:
                finished.append(row)
                finished_bytes += size + growth
                if partial:
                    partial.pop(row, None)
        count = len(finished) - before
        self.commits.ended.extend(finished[before:])
        self.commits.ended_bytes += finished_bytes
        self.open_bytes += growth_bytes - finished_bytes
        self.tally.finished(count)

    def _end_rows_early(self, tasks: list[int], *, dead: bool) -> None:
        rows = []
        for task in tasks:
            if task not in self._cancelled:
                self._end_row_early(task, dead=dead)
                rows.append(task // self._steps)
        if rows:
            self.emit(ev.DropRows(rows=rows))

    def _end_row_early(self, task: int, *, dead: bool) -> None:
        """A row ends at a step: without output, or dead. What it has open in other branches is cancelled."""
        row, step = divmod(task, self._steps)
        family = self.families.of_row(row)
        size = self._close_task(task, family)
        self.open_bytes -= size
        # A filtered row leaves nothing in memory; a dead one waits for its commit as a record of this size at most.
        kept = min(size, DEAD_ROW_BYTES) if dead else 0
        if family is None:
            if dead:
                self.commits.dead.append(row)
            self.tally.ended_early(step, dead=dead, already_dead=row in self._dead_before)
            self.commits.end(row, kept)
            return
        if dead:
            family.bytes += kept
            self.open_bytes += kept
            family.dead.append(row)
        else:
            family.filtered += 1
        family.passed(self.graph.passed(self.families.made_by.get(row), step))
        family.ended_at(step, dead=dead)
        if not self._chain:
            self._cancel_branches(row, family)
        self._close_family(family, step)

    def _cancel_branches(self, row: int, family: Family) -> None:
        # What the other branches would give can't be joined any more: replicas have better work.
        self.open_bytes -= self.families.forget(row)
        cancelled = [task for task in range(row * self._steps, (row + 1) * self._steps) if task in self.open]
        for task in cancelled:
            self.open_bytes -= self._close_task(task, family)
        if cancelled:
            self._cancelled.update(cancelled)
            self.emit(ev.CancelTasks(tasks=cancelled))
            self.begun.withdraw(cancelled)

    def _on_task_expanded(self, event: ev.TaskExpanded) -> None:
        # Children of a row that has ended in another branch would never be joined.
        if event.task in self._cancelled:
            return
        row, step = divmod(event.task, self._steps)
        family = self._family_to_expand(row)
        self.open_bytes -= self._close_task(event.task, family)
        family.passed((*self.graph.passed(self.families.made_by.get(row), step), step))
        count = len(event.sizes_bytes)
        first = self._adopt(family.root, count, made_by=step)
        self.emit(ev.Adopt(task=event.task, first_row=first, count=count))
        following = self._following[step]
        for child, size in enumerate(event.sizes_bytes, first):
            if following:
                self._begin_at(following, child, size)
            else:
                self.open_bytes += size
                self._finish(family, child, size)
        self._close_family(family, step)

    def _adopt(self, root: int, count: int, made_by: int | None = None) -> int:
        """Numbers for `count` rows of the family of `root`; the first of them."""
        first = self._next_child
        self._next_child += count
        self.families.adopt(root, first, count, made_by)
        return first

    def _family_to_expand(self, row: int) -> Family:
        """The family of `row`; a plain row of a chain becomes one."""
        family = self.families.of_row(row)
        if family is None:
            family = self.families.of_root(row)
            family.open_tasks = 1
        return family

    def _close_family(self, family: Family, step: int) -> None:
        """A task of the family has ended at `step`; perhaps it was the last one open."""
        if family.open_tasks:
            # The family may be open for hours: what was paid for is not to be lost with this life.
            if self._paid[step]:
                self.commits.partial[family.root] = None
            return
        self.open_bytes -= family.bytes
        self.commits.end_family(family)
        self.tally.family(family, already_dead=family.root in self._dead_before)
        self.families.close(family)

    # ------------------------------------------------------------ commits and ends

    def _on_committed(self, event: ev.Committed) -> None:
        self.tally.rejected(event.moved)
        self.commits.done(event.cause)

    def _on_stop_requested(self, event: ev.StopRequested) -> None:
        if not self.commits.final:  # else it is done: only the last commit is on its way
            self._stop(event.reason)

    def _on_drained(self, event: ev.DispatchDrained) -> None:
        self._drained = True

    def _stop(self, status: str) -> None:
        # The first reason stands: a run that was stopped is not one that failed, however its end goes.
        if not self.stopping:
            self.stopping = status
            self.emit(ev.Drain())

    def _settle(self) -> None:
        if self.status:
            return
        if self.admission.at_limit():
            self.emit(ev.SourceExhausted())
        for step, tasks, orders in self.begun.take():
            self.emit(ev.StartTasks(step=step, tasks=tasks, orders=orders))
        # Judged before the commit: a batch that completes the phase could not be taken back.
        at_end = self._all_ended()
        if not self.stopping and self.tally.too_many_dead(
            self.limits.max_dead, self.limits.dead_judged_from, at_end=at_end
        ):
            self._stop("too_many_dead")
        self._commit(at_end)
        if not self.stopping:
            self._admit()
        # A read or a batch that is still out is answered once more, and must find this phase.
        elif self._drained and self.commits.idle() and not self.admission.reading:
            self._end(self.stopping)

    def _all_ended(self) -> bool:
        return self.admission.total_rows is not None and not self.open and not self.families.by_root

    def _admit(self) -> None:
        # Rows that have ended hold memory until they are durable, which the window does not count.
        if self.commits.full(self.now):
            return
        wanted = self.admission.wanted(len(self.open), self.open_bytes, self.commits.positions.watermark)
        if wanted:
            self.admission.reading = True
            self.emit(ev.ReadRows(max_rows=wanted, below=self.admission.below))

    def _commit(self, at_end: bool) -> None:
        final = at_end and not self.stopping
        # Nothing will end any more: to wait for the clock of the batch would only delay the exit.
        draining_done = bool(self.stopping) and self._drained
        batch = self.commits.next_batch(self.now, ended=final or draining_done, final=final)
        if batch is not None:
            batch.counts = self.tally.counts()
            if self.admission.complete and not self.shape.begin:  # a later phase has positions of its own
                batch.total_rows = self.total_rows
            batch.mark = self.admission.mark
            # They can't die again, and a run of days would remember every dead row.
            self._dead_before.difference_update(batch.ended)
            self.commits.sent(self.emit(batch))
        elif final and self.commits.idle():
            self._end("done")

    def _end(self, status: str) -> None:
        self.status = status
        self.emit(ev.PhaseEnded(status=status))
