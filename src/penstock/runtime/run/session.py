"""Resources shared by all invocations of one command: clock, inbox and signals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from penstock.runtime.inbox import Inbox
from penstock.runtime.watch.clock import RunClock, process_age_s
from penstock.runtime.watch.signals import Interrupts

__all__ = ["Session", "session"]


class Session(NamedTuple):
    clock: RunClock
    inbox: Inbox
    interrupts: Interrupts


@contextmanager
def session(*, whole_process: bool) -> Iterator[Session]:
    """whole_process: count times from the start of the process rather than from here."""
    clock = RunClock(process_age_s() if whole_process else 0.0)
    with closing(Inbox()) as inbox, Interrupts(inbox) as interrupts:
        yield Session(clock, inbox, interrupts)
