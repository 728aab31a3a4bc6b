"""What the coordinator holds of one replica's processes: the control socket of its guardian, and how it ended."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from penstock.executors.base import Exit
from penstock.executors.guardian import SWEEP_LIMIT_S, descendants
from penstock.executors.logs import exit_tail

__all__ = ["KILL_LIMIT_S", "Guarded"]

# A guardian that was asked to end its replica has so long; one that works gives up after `SWEEP_LIMIT_S` itself.
KILL_LIMIT_S = SWEEP_LIMIT_S + 5.0
_ROUNDS = 10  # of killing what is below a guardian that does not: they may fork while we look


class Guarded:
    """`ended` is None until the replica's last process is gone.

    keeper  the topmost of its processes (see `guardian`)
    """

    def __init__(
        self,
        replica: str,
        incarnation: int,
        control: socket.socket,
        log: Path,
        log_start: int,
        keeper: subprocess.Popen[bytes],
    ) -> None:
        control.setblocking(False)
        self.replica = replica
        self.incarnation = incarnation
        self.control = control
        self.keeper = keeper
        self.host_pid: int | None = None
        self.ended: Exit | None = None
        self._log = log
        self._log_start = log_start
        self._received = b""
        self._status: int | None = None
        self._guardian_pid = 0  # it says so itself
        self._kill_by_s: float | None = None

    def kill(self, dump_stacks: bool = False) -> None:
        """Ask the guardian to end everything, as it does when the socket closes. One that is stopped continues."""
        try:
            self.control.send(b"dump\n" if dump_stacks else b"kill\n")
        except OSError:
            pass  # it is gone already: its Exit is on the way
        if self.ended is None:
            if self._kill_by_s is None:
                self._kill_by_s = time.monotonic() + KILL_LIMIT_S
            self._signal(signal.SIGCONT, self.keeper.pid, self._guardian_pid)

    def look(self) -> Exit | None:
        """Read what the guardian says; the Exit when it has said its last. To be asked now and then after `kill`, since
        a guardian that does not do it in time says nothing."""
        if self._kill_by_s is not None and time.monotonic() > self._kill_by_s and self.ended is None:
            self._kill_by_s = None
            self._kill_directly()
        while self.ended is None:
            try:
                data = self.control.recv(4096)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._end()
            self._received += data
            *lines, self._received = self._received.split(b"\n")
            for line in lines:
                self._take(json.loads(line))
        return self.ended

    def wait(self, until_s: float) -> None:
        """Look until it has ended or the time (monotonic) is over."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        while self.look() is None and time.monotonic() < until_s:
            until_next_s = until_s if self._kill_by_s is None else min(until_s, self._kill_by_s)
            poll.poll(max(1.0, (until_next_s - time.monotonic()) * 1000))

    def _take(self, said: dict[str, int]) -> None:
        self.host_pid = said.get("host", self.host_pid)
        self._guardian_pid = said.get("guardian", self._guardian_pid)
        self._status = said.get("status", self._status)

    def _end(self) -> None:
        if self._status is None and self.host_pid is not None:
            self._kill_group(self.host_pid)  # the guardian was killed: what it would have done, as far as we can
        status = -signal.SIGKILL if self._status is None else self._status
        self.ended = Exit(self.replica, self.incarnation, status, exit_tail(self._log, self._log_start))
        self.control.close()

    def _kill_directly(self) -> None:
        """What the guardian would do, if it hangs: end everything below the keeper, and that itself. The control socket
        is open, so these numbers are still theirs; and all below them that has lost its parent is their child."""
        for _ in range(_ROUNDS):
            below = descendants(self.keeper.pid, zombies=False)
            if not below:
                break
            self._signal(signal.SIGKILL, *below)
            time.sleep(0.01)
        self._signal(signal.SIGKILL, self.keeper.pid)

    def _signal(self, number: int, *pids: int) -> None:
        for pid in pids:
            with suppress(OSError):
                if pid:
                    os.kill(pid, number)

    def _kill_group(self, host_pid: int) -> None:
        try:
            os.killpg(host_pid, signal.SIGKILL)
        except OSError:
            pass  # the host died with its guardian
