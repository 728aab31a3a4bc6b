"""The watchdog of the loop: if the loop is blocked, it logs the stacks of all threads and ends the run.

A loop turns at least every fifth of a second. What can hold it up is a bug, or code of the user's that it calls.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.errors import Stalled
from penstock.runtime.watch.log_writer import LogWriter
from penstock.runtime.watch.signals import Interrupts
from penstock.runtime.watch.stalls import Activity

__all__ = ["LOOP_LIMIT_S", "Watchdog"]

LOOP_LIMIT_S = 120.0
_SHUTDOWN_TIMEOUT_S = 90.0  # the process exits then, if its run has not ended


class Watchdog:
    """`turning`: restarted with every turn of the loop. own_process: nothing else lives in this process."""

    def __init__(self, interrupts: Interrupts, log_writer: LogWriter, log: Path, *, own_process: bool) -> None:
        self._interrupts, self._scribe, self._log, self._own_process = interrupts, log_writer, log, own_process
        self.turning = Activity(lambda seconds: "", limit_s=LOOP_LIMIT_S, over=self._stands_still)

    def _stands_still(self, seconds: int) -> None:
        self._scribe.append(f"the loop was blocked for {seconds} s:\n{stacks()}\n")
        error = Stalled(
            f"the coordinator's loop was blocked for {seconds} s; its stack traces are in {self._log}. "
            "Run the same command to continue from the last commit"
        )
        self._interrupts.abandon(error)

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Around the end of a run. A disk that hangs may hold it up for ever; a process of our own ends then."""
        timer = threading.Timer(_SHUTDOWN_TIMEOUT_S, os._exit, (Stalled.exit_code,))
        timer.daemon = True
        if self._own_process:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()


def stacks() -> str:
    """What every thread is doing, the main thread first."""
    frames, lines = sys._current_frames(), []
    for thread in threading.enumerate():
        if thread.ident in frames:
            lines += [f"thread {thread.name}:", *traceback.format_stack(frames[thread.ident])]
    return "\n".join(line.rstrip() for line in lines)
