"""What the coordinator holds of one replica's processes: the control socket of its guardian, and how it ended."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

from penstock.executors.base import Exit
from penstock.executors.logs import exit_tail

__all__ = ["Guarded"]


class Guarded:
    """`ended` is None until the replica's last process is gone. `guardian` is None where it is another's child."""

    def __init__(
        self,
        replica: str,
        incarnation: int,
        control: socket.socket,
        log: Path,
        log_start: int,
        guardian: subprocess.Popen[bytes] | None = None,
    ) -> None:
        control.setblocking(False)
        self.replica = replica
        self.incarnation = incarnation
        self.control = control
        self.guardian = guardian
        self.host_pid: int | None = None
        self.ended: Exit | None = None
        self._log = log
        self._log_start = log_start
        self._received = b""
        self._status: int | None = None

    def kill(self, dump_stacks: bool = False) -> None:
        """Ask the guardian to end everything; it does so anyway when the socket closes."""
        try:
            self.control.send(b"dump\n" if dump_stacks else b"kill\n")
        except OSError:
            pass  # it is gone already: its Exit is on the way

    def look(self) -> Exit | None:
        """Read what the guardian says; the Exit when it has said its last."""
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
            poll.poll(max(1.0, (until_s - time.monotonic()) * 1000))

    def _take(self, said: dict[str, int]) -> None:
        self.host_pid = said.get("host", self.host_pid)
        self._status = said.get("status", self._status)

    def _end(self) -> None:
        if self._status is None and self.host_pid is not None:
            self._kill_group(self.host_pid)  # the guardian was killed: what it would have done, as far as we can
        status = -signal.SIGKILL if self._status is None else self._status
        self.ended = Exit(self.replica, self.incarnation, status, exit_tail(self._log, self._log_start))
        self.control.close()

    def _kill_group(self, host_pid: int) -> None:
        try:
            os.killpg(host_pid, signal.SIGKILL)
        except OSError:
            pass  # the host died with its guardian
