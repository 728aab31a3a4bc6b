"""Events and instructions: the only language of the core.

Whoever drives the core (`runtime/` with processes and files, `sim/` with a heap of virtual times) reports what happened
as events, performs the instructions that come back, and reports the effect of each as an event again. Both carry lists,
so that the cost of one is shared by many rows. They hold identities, sizes and costs, never payloads.

Identities are integers:

    row      a source row's position; children made by `expand` count up from CHILD_BASE
    task     row * number of steps + step
    replica  index of a replica in the order of the plan; `incarnation` counts its starts
    attempt  counts the sends of one task, from 1; an answer is taken only for the attempt that is out

`cause` of an event is the `id` of the instruction whose effect it tells, 0 where the world spoke first.
"""

from __future__ import annotations

from msgspec import Struct

from penstock.core.counts import Counts
from penstock.core.shape import ReplicaShape, SourceMark

CHILD_BASE = 1 << 44  # source positions stay far below; task numbers stay far below 2**63


class Event(Struct, kw_only=True):
    cause: int = 0


class Instruction(Struct, kw_only=True):
    id: int = 0


# ---------------------------------------------------------------- events of the flow


class RowsRead(Event):
    """The source gave rows. `next_position` is where reading goes on.

    unreadable  positions that hold no row
    families    in a later phase: positions of which the phase before has left several rows, with the size of each
    counted     of all these, positions whose source rows count as dead already: a row of theirs died in a phase before
    mark        what was read of the source so far, these positions included; None where it needs no evidence
    """

    rows: list[int]
    sizes_bytes: list[int]
    unreadable: list[int]
    next_position: int
    families: list[tuple[int, list[int]]] = []
    counted: list[int] = []
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
    """Admit nothing more and end in good order; `reason`: stopped | failed. `failed` also when a pool is down."""

    reason: str


class DispatchDrained(Event):
    """After a Drain: nothing is in flight any more, or the grace is over. What has not ended will not end."""


class Tick(Event):
    """Time has passed. Both machines look at their clocks only here and where an event brings `now`."""


# ---------------------------------------------------------------- instructions of the flow


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
    """End in good order: no request may be sent any more. Ends in DispatchDrained."""


class SourceExhausted(Instruction):
    """No source row will follow: the dispatcher may look at the rest as a whole."""


class PhaseEnded(Instruction):
    """Everything admitted has ended and is durable. status: done | stopped | failed | too_many_dead."""

    status: str


# ---------------------------------------------------------------- events of the dispatcher


class OpenPools(Event):
    """Requests will come: start the replicas of these pools; of those in `lazy` with their first request.

    phase: the one that has begun; replicas that the plan does not load in it stay off
    """

    pools: list[int]
    lazy: list[int] = []
    phase: int = 0


class ClosePools(Event):
    """These pools are not needed now: end their replicas, or put those of `sleep` to sleep. Ends in PoolsClosed.

    phase: the one that is about to begin; replicas of other pools that the plan does not load in it end too
    """

    pools: list[int]
    sleep: list[int] = []
    phase: int = 0


class Submit(Event):
    """Requests of one step, ready to run.

    orders      position of the source row: rank within a step
    tokens_in   expected prompt tokens (the host corrects them)
    tokens_out  limit of output tokens; 0 where there are none
    priority    class of the requests; lower runs first. Batch work is 100
    deadline    time by which the answer is worth something, or None
    """

    pool: int
    step: int
    tasks: list[int]
    orders: list[int]
    tokens_in: list[int]
    tokens_out: list[int]
    priority: int = 100
    deadline: float | None = None


class Exhausted(Event):
    """No further source rows: rank the longest expected first."""


class CancelRequests(Event):
    """Nobody wants the answers of these any more. Ends in Cancelled."""

    tasks: list[int]


class ReplicaReady(Event):
    """`shared`: the slots share one device, so that more requests at once slow each other down."""

    replica: int
    incarnation: int
    slots: int
    kv_tokens: int
    shared: bool = False


class ReplicaLoadFailed(Event):
    """The engine said why it can't load; the replica is not tried again."""

    replica: int
    incarnation: int
    reason: str
    out_of_memory: bool = False


class ReplicaAsleep(Event):
    """The replica has given its devices' memory back."""

    replica: int
    incarnation: int


class ReplicaLost(Event):
    """The replica's processes ended, or its connection did. `jitter` in [0, 1) spreads restarts.

    out_of_memory: it said so before it ended; no request is to blame
    device_failed: it said that its device is broken; when it says so again it is given up
    """

    replica: int
    incarnation: int
    reason: str
    jitter: float
    out_of_memory: bool = False
    device_failed: bool = False


class AnswersArrived(Event):
    """Answers of one replica, as parallel lists.

    batch       number that the shell gave these answers; Deliver and FailRequests name it
    codes       "" for a result, "retry", or the code of a row's failure; None when all are results
    executing, waiting, turnaround_s, progress: what the host reported beside them
    returned    tasks given back untouched (answer to TakeBack), or None
    sized       (task, true prompt tokens)
    """

    batch: int
    replica: int
    incarnation: int
    tasks: list[int]
    attempts: list[int]
    codes: list[str] | None
    tokens_in: list[int]
    tokens_out: list[int]
    executing: int
    waiting: int
    turnaround_s: float
    progress: int
    returned: list[int] | None = None
    sized: list[tuple[int, int]] = []


class HeartbeatArrived(Event):
    replica: int
    incarnation: int
    executing: int
    waiting: int
    progress: int


class DrainRequested(Event):
    """Send nothing more and take back what engines have not begun. Ends in Drained, after `grace_s` at the latest."""

    grace_s: float


class AddReplica(Event):
    """A pool has one more replica, loaded as soon as its pool is open. replica: the next index, or that of a replica
    that was removed (ReplicaRemoved) in the same pool."""

    replica: int
    shape: ReplicaShape


class RemoveReplica(Event):
    """A pool has one replica less. Ends in ReplicaRemoved.

    drain: it finishes what is in flight, and gets nothing new; otherwise it is ended now, and others take that over
    """

    replica: int
    drain: bool = True


class PausePool(Event):
    """Nothing is sent to the pool until ResumePool. What is in flight goes on."""

    pool: int


class ResumePool(Event):
    pool: int


class SlotsChanged(Event):
    """The replica runs so many requests at a time from now on: its host says so, or its operator wants it."""

    replica: int
    incarnation: int
    slots: int


# ---------------------------------------------------------------- instructions of the dispatcher


class StartReplica(Instruction):
    """Ends in ReplicaReady, ReplicaLoadFailed or ReplicaLost of this incarnation.

    rung: 0 as planned; else how many steps down the ladder, since it ran out of memory while it started
    share: of the slots and tokens that its engine has room for, how much it is to use, since it ran out of memory while
    it worked
    """

    replica: int
    incarnation: int
    rung: int = 0
    share: float = 1.0


class SleepReplica(Instruction):
    """Give the devices' memory back, and stay. Ends in ReplicaAsleep or ReplicaLost."""

    replica: int
    incarnation: int


class WakeReplica(Instruction):
    """Take the memory again. Ends in ReplicaReady, ReplicaLoadFailed or ReplicaLost."""

    replica: int
    incarnation: int


class KillReplica(Instruction):
    """End its process group now. Ends in ReplicaLost."""

    replica: int
    incarnation: int
    reason: str
    dump_stacks: bool


class ReplicaRemoved(Instruction):
    """The replica has left its pool, and its processes have ended."""

    replica: int


class Send(Instruction):
    replica: int
    incarnation: int
    tasks: list[int]
    attempts: list[int]


class TakeBackFrom(Instruction):
    """Ends in AnswersArrived with `returned` (or in ReplicaLost)."""

    replica: int
    incarnation: int
    tasks: list[int]


class AbortOn(Instruction):
    """Stop these. No answer follows: their places are free at once, and an answer that is under way is dropped."""

    replica: int
    incarnation: int
    tasks: list[int]


class Cancelled(Instruction):
    """None of these is delivered from now on: they had ended before CancelRequests came, or are withdrawn."""

    tasks: list[int]


class Deliver(Instruction):
    """Take these answers (indexes into the lists of AnswersArrived `batch`) as the results of their tasks."""

    batch: int
    replica: int
    accepted: list[int]


class FailRequests(Instruction):
    """These requests end without a result; `codes` as in errors.DEAD_CODES.

    indexes   into AnswersArrived `batch`, where the engine's message is; -1: the dispatcher's own `messages` say why
    attempts  sends of each request so far
    """

    batch: int
    replica: int
    tasks: list[int]
    codes: list[str]
    messages: list[str]
    indexes: list[int]
    attempts: list[int]


class Drained(Instruction):
    """Nothing is in flight any more, or the grace of the drain is over."""


class PoolDown(Instruction):
    """No replica of the pool is left and none will be started again.

    out_of_memory: all of them ran out of memory at the start, on every rung
    """

    pool: int
    reason: str
    out_of_memory: bool = False


class PoolsClosed(Instruction):
    """The replicas that had to leave have left, or sleep."""


class Recovered(Instruction):
    """Something went wrong and was dealt with; for logs and figures, nothing to perform.

    kind: restart | requeued | stale_answer | suspect | circuit | hang | ladder (count: the rung)
    | memory (count: percent of its room that it uses from now on)
    | slow (count: percent of the pace of its like)
    """

    kind: str
    replica: int
    count: int
    reason: str
