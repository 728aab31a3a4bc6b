"""Events and instructions of the dispatcher: requests, answers, replicas, pools. See `events.py`."""

from __future__ import annotations

from penstock.core.language import Event, Instruction, ReplicaEvent, ReplicaInstruction
from penstock.core.shape import ReplicaShape


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
    timeout_s   seconds from now after which the answer is worth nothing: the requests end as `expired`; None: never
    """

    pool: int
    step: int
    tasks: list[int]
    orders: list[int]
    tokens_in: list[int]
    tokens_out: list[int]
    priority: int = 100
    timeout_s: float | None = None


class Exhausted(Event):
    """No further source rows: rank the longest expected first."""


class CancelRequests(Event):
    """Nobody wants the answers of these any more. Ends in Cancelled."""

    tasks: list[int]


class ReplicaReady(ReplicaEvent):
    """`shared`: the slots share one device, so that more requests at once slow each other down."""

    slots: int
    kv_tokens: int
    shared: bool = False


class ReplicaLoadFailed(ReplicaEvent):
    """The engine said why it can't load; the replica is not tried again."""

    reason: str
    out_of_memory: bool = False


class ReplicaAsleep(ReplicaEvent):
    """The replica has given its devices' memory back."""


class ReplicaLost(ReplicaEvent):
    """The replica's processes ended, or its connection did. `jitter` in [0, 1) spreads restarts.

    out_of_memory: it said so before it ended; no request is to blame
    device_failed: it said that its device is broken; when it says so again it is given up
    """

    reason: str
    jitter: float
    out_of_memory: bool = False
    device_failed: bool = False


class FirstParts(ReplicaEvent):
    """The first part of the answer to each of these has gone to who listens: they are never run again. The parts
    themselves pass the core by."""

    tasks: list[int]
    attempts: list[int]


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


class HeartbeatArrived(ReplicaEvent):
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
    """Nothing is sent to the pool until ResumePool. What is in flight continues."""

    pool: int


class ResumePool(Event):
    pool: int


class SlotsChanged(ReplicaEvent):
    """The replica runs so many requests at a time from now on: its host says so, or its operator wants it."""

    slots: int


# ---------------------------------------------------------------- instructions


class StartReplica(ReplicaInstruction):
    """Ends in ReplicaReady, ReplicaLoadFailed or ReplicaLost of this incarnation.

    rung: 0 as planned; else how many steps down the ladder, since it ran out of memory while it started
    share: of the slots and tokens that its engine has room for, how much it is to use, since it ran out of memory while
    it worked
    """

    rung: int = 0
    share: float = 1.0


class SleepReplica(ReplicaInstruction):
    """Give the devices' memory back, and stay. Ends in ReplicaAsleep or ReplicaLost."""


class WakeReplica(ReplicaInstruction):
    """Take the memory again. Ends in ReplicaReady, ReplicaLoadFailed or ReplicaLost."""


class KillReplica(ReplicaInstruction):
    """End its process group now. Ends in ReplicaLost."""

    reason: str
    dump_stacks: bool


class ReplicaRemoved(Instruction):
    """The replica has left its pool, and its processes have ended."""

    replica: int


class Send(ReplicaInstruction):
    tasks: list[int]
    attempts: list[int]


class TakeBackFrom(ReplicaInstruction):
    """Ends in AnswersArrived with `returned` (or in ReplicaLost)."""

    tasks: list[int]


class AbortOn(ReplicaInstruction):
    """Stop these. No answer follows: their places are free at once, and an answer that is under way is dropped.
    Nothing closes it: design/0018."""

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

    replica   -1: not one of a replica; they were past their deadlines
    indexes   into AnswersArrived `batch`, where the engine's message is; -1: the dispatcher's own `messages` say why
    attempts  sends of each request so far
    """

    batch: int = 0
    replica: int = -1
    tasks: list[int] = []
    codes: list[str] = []
    messages: list[str] = []
    indexes: list[int] = []
    attempts: list[int] = []


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
    | slow (count: percent of the median throughput of its peers)
    """

    kind: str
    replica: int
    count: int
    reason: str
