"""Named points at which a test run kills itself, to prove that any instant is a safe one to die at.

`PENSTOCK_FAULTPOINT=name:n` sends SIGKILL to this process the nth time that it reaches `fault(name)`. Without the
variable a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

__all__ = ["FAULT_POINTS", "arm", "fault"]

# Every point of the ledger, in the order in which a first run meets them.
FAULT_POINTS: tuple[str, ...] = (
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
    "commit.dead_staged",
    "commit.stage_synced",
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
    if _trigger.hits_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
