"""Events and instructions of the flow: rows read, tasks ended, commits. See `events.py`."""

from __future__ import annotations

from penstock.core.counts import Counts
from penstock.core.language import Event, Instruction
from penstock.core.shape import SourceMark


class RowsRead(Event):
    """The source gave rows. `next_position` is where reading continues.

    unreadable    positions that hold no row
    families      in a later phase: positions of which the phase before has left several rows, with the size of each
    already_dead  of all these, positions whose source rows count as dead: a row of theirs died in a phase before
    mark          what was read of the source so far, these positions included; None where it needs no evidence
    """

    rows: list[int]
    sizes_bytes: list[int]
    unreadable: list[int]
    next_position: int
    families: list[tuple[int, list[int]]] = []
    already_dead: list[int] = []
    mark: SourceMark | None = None


class SourceEnded(Event):
    """There are no more rows. `total_rows`: positions in the source. `mark`: as in RowsRead."""

    total_rows: int
    mark: SourceMark | None = None


class TasksDone(Event):
    """These tasks succeeded; `growth_bytes` is what their results add to their rows in memory."""

    tasks: list[int]
    growth_bytes: list[int]


class TasksFiltered(Event):
    """These tasks ended their rows without an output row."""

    tasks: list[int]


class TaskExpanded(Event):
    """One task replaced its row by children (at least one)."""

    task: int
    sizes_bytes: list[int]


class TasksDead(Event):
    """These tasks failed for good; their rows are dead. The shell keeps code and message."""

    tasks: list[int]


class TasksCancelled(Event):
    """Nothing more will be said of the tasks of a CancelTasks."""

    tasks: list[int]


class Committed(Event):
    """The batch of instruction `cause` is durable.

    moved: what that changes in its totals, where output rows could not be encoded and are dead rows instead
    """

    moved: Counts = Counts()


class StopRequested(Event):
    """Admit nothing more and end cleanly; `reason`: stopped | failed. `failed` also when a pool is down."""

    reason: str


class DispatchDrained(Event):
    """After a Drain: nothing is in flight any more, or the grace is over. What has not ended will not end."""


class Tick(Event):
    """Time has passed. Both machines look at their clocks only here and where an event brings `now`."""


# ---------------------------------------------------------------- instructions


class ReadRows(Instruction):
    """Read at most this many records, none of a position from `below` on (None: no limit). One such instruction is out
    at a time. Ends in RowsRead or SourceEnded."""

    max_rows: int
    below: int | None = None


class StartTasks(Instruction):
    """Render the requests of these tasks, all of one step. `orders`: position of each task's source row."""

    step: int
    tasks: list[int]
    orders: list[int]


class Adopt(Instruction):
    """The children of `task` get consecutive row numbers from `first_row` on; the parent row is forgotten."""

    task: int
    first_row: int
    count: int


class AdoptFamily(Instruction):
    """The rows that were read together at `position` get consecutive row numbers from `first_row` on."""

    position: int
    first_row: int
    count: int


class CancelTasks(Instruction):
    """These tasks are of no use any more: their row ended in another branch. Ends in TasksCancelled."""

    tasks: list[int]


class DropRows(Instruction):
    """Forget the payload of these rows: filtered, or dead and recorded."""

    rows: list[int]


class Commit(Instruction):
    """Make durable together. Ends in Committed.

    finished    rows whose families ended, with an output
    ended       source positions that ended in this batch, ascending
    dead        rows whose dead records belong to this batch
    partial     source positions that have not ended, with results of paid steps that no batch has had yet
    watermark   every position below it has ended, this batch included
    publish_to  see ledger.CommitBatch
    counts      totals of the run with this batch included
    total_rows  positions of the source, once its end was seen; None also where admission ended at a limit
    mark        what was read of the source; every position of this batch and of those before lies below its own
    """

    finished: list[int]
    ended: list[int]
    dead: list[int]
    partial: list[int]
    watermark: int
    publish_to: int | None
    counts: Counts
    total_rows: int | None
    final: bool
    mark: SourceMark | None = None


class Drain(Instruction):
    """End cleanly: no request may be sent any more. Ends in DispatchDrained."""


class SourceExhausted(Instruction):
    """No source row will follow: the dispatcher may look at the rest as a whole."""


class PhaseEnded(Instruction):
    """Everything admitted has ended and is durable. status: done | stopped | failed | too_many_dead."""

    status: str
