"""Named points at which a test run kills itself, to prove that any instant is a safe one to die at.

`PENSTOCK_FAULTPOINT=name:n` sends SIGKILL to this process the nth time that it reaches `fault(name)`. With
`PENSTOCK_FAULT_ONCE=path` only the first process that gets there dies, and leaves the file `path`: replicas inherit the
variable, and a new one would die at the same point again. Without the variable a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

__all__ = ["FAULT_POINTS", "HOST_POINTS", "LEDGER_POINTS", "SHELL_POINTS", "arm", "fault"]

# Of the ledger, in the order in which a first run meets them.
LEDGER_POINTS: tuple[str, ...] = (
    "open.folders_made",
    "open.run_file_linked",
    "open.moves_finished",
    "open.claimed",
    "open.owner_written",
    "open.swept",
    "commit.encoded",
    "commit.segment_written",
    "commit.carried_written",
    "commit.part_staged",
    "commit.part_joined",
    "commit.dead_staged",
    "commit.stage_synced",
    "commit.partial_written",
    "entry.temporary_written",
    "entry.linked",
    "entry.synced",
    "entry.hint_written",
    "move.renamed",
    "move.synced",
    "commit.moved",
    "commit.file_dropped",
    "commit.done",
    "close.owner_released",
)
# Of the shell: `perform.X` before each instruction X of the core, and where threads and processes meet the loop.
SHELL_POINTS: tuple[str, ...] = (
    "run.planned",
    "run.opened",
    "run.assembled",
    "perform.StartReplica",
    "perform.ReadRows",
    "reader.chunk_read",
    "perform.StartTasks",
    "replica.connected",
    "perform.Send",
    "perform.Deliver",
    "perform.FailRequests",
    "perform.DropRows",
    "perform.Adopt",
    "perform.AdoptFamily",
    "perform.TakeBackFrom",
    "perform.Commit",
    "writer.committed",
    "live.written",
    "perform.SleepReplica",
    "perform.WakeReplica",
    "perform.PhaseEnded",
    "replica.exited",
    "perform.KillReplica",
    "run.ended",
    "run.summary_written",
)
# Of the process that runs an engine.
HOST_POINTS: tuple[str, ...] = (
    "host.started",
    "host.setup_received",
    "host.ready_sent",
    "host.requests_received",
    "host.answers_sent",
    "host.takeback_received",
)
FAULT_POINTS = (*LEDGER_POINTS, *SHELL_POINTS, *HOST_POINTS)


class _Trigger:
    def __init__(self, setting: str | None) -> None:
        name, _, count = (setting or "").partition(":")
        self.name = name or None
        self.hits_left = int(count or 1)


_trigger = _Trigger(os.environ.get("PENSTOCK_FAULTPOINT"))


def arm(setting: str | None) -> None:
    """Set what the variable would, in a process that runs already."""
    global _trigger
    _trigger = _Trigger(setting)


def fault(name: str) -> None:
    """Die here, if this is the point and the hit that the environment asks for."""
    if _trigger.name != name:
        return
    _trigger.hits_left -= 1
    if _trigger.hits_left == 0 and _is_first():
        os.kill(os.getpid(), signal.SIGKILL)


def _is_first() -> bool:
    path = os.environ.get("PENSTOCK_FAULT_ONCE")
    if path is None:
        return True
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
