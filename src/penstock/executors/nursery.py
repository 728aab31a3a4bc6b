"""Workers for functions that can't be imported: lambdas, closures, functions of a notebook or a script.

The nursery is a process forked from the coordinator before its loop and its threads start. It holds the functions as
they were then, and does nothing but fork: a guardian for each replica that asks for one, which forks the host. Rows
travel by message as to any other host, and a worker that died is forked again, the same way.

    coordinator --request, with sockets and log--> nursery --fork--> guardian --fork--> host (python engine)

A process that has threads can't be forked safely: a lock that another thread holds stays locked in the child for
ever. So starting one is refused then, with what to do instead.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from penstock.errors import PoolFailed, UsageError
from penstock.executors.base import Launch
from penstock.executors.descriptors import occupy_standard

__all__ = ["Nursery"]

REPLY_LIMIT_S = 20.0  # a fork takes milliseconds, even on a machine that swaps
_MAX_REQUEST_BYTES = 1 << 20
_DESCRIPTORS = 3

Function = Callable[[Any], Any]


class Nursery:
    """Forks at once. functions: by Request.step; None where a step has none, or one that is imported.

    Raises UsageError when this process has more than one thread.
    """

    def __init__(self, functions: Sequence[Function | None]) -> None:
        _refuse_threads()
        occupy_standard()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests.settimeout(REPLY_LIMIT_S)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # closed, or full: then nothing of it is printed
                stream.flush()  # what is still in the buffer would be printed by every child, too
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of sleeping pools of C libraries
            self.pid = os.fork()
        if self.pid == 0:
            self._requests.close()
            _serve(theirs, tuple(functions))
        theirs.close()

    def fork(self, launch: Launch, control: int, host: int, log: int) -> int:
        """Fork a guardian with its host; the guardian's process id. Raises PoolFailed when the nursery is gone."""
        request = {"cores": list(launch.config.cores), "env": launch.env}
        descriptors = array.array("i", (control, host, log))
        try:
            self._requests.sendmsg(
                [json.dumps(request).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
            )
            reply = self._requests.recv(64)
        except OSError:
            reply = b""
        if not reply:
            raise PoolFailed(
                f"{launch.replica} can't be started: the process that holds the functions of this pipeline "
                f"(process {self.pid}) has ended; run again, or put the functions into a module"
            )
        return int(reply)

    def close(self) -> None:
        """End the nursery; replicas forked from it are not touched."""
        self._requests.close()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # reaped elsewhere, or closed before


def _refuse_threads() -> None:
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        raise UsageError(
            f"functions that can't be imported (lambdas, functions of a notebook or a script) are handed over by fork, "
            f"which is not safe while threads run ({', '.join(others)}); put the functions into a module and import "
            "them, or start the run before the threads"
        )


# ---------------------------------------------------------------- in the nursery's own process


def _serve(requests: socket.socket, functions: tuple[Function | None, ...]) -> NoReturn:
    try:
        os.setsid()  # the terminal's Ctrl-C is the coordinator's business
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # guardians that end are reaped by the kernel
        requests.settimeout(None)
        while True:
            data, ancillary, _, _ = requests.recvmsg(_MAX_REQUEST_BYTES, socket.CMSG_SPACE(_DESCRIPTORS * 4))
            if not data:
                os._exit(0)  # the coordinator is gone
            descriptors = _descriptors(ancillary)
            pid = os.fork()
            if pid == 0:
                requests.close()
                _become_guardian(json.loads(data), descriptors, functions)
            for descriptor in descriptors:
                os.close(descriptor)
            requests.send(str(pid).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for _, _, data in ancillary:
        found.frombytes(data)
    return list(found)


def _become_guardian(
    request: dict[str, Any], descriptors: list[int], functions: tuple[Function | None, ...]
) -> NoReturn:
    from penstock.executors import guardian

    control, host, log = descriptors
    os.setsid()
    _redirect(log)
    os.environ.update(request["env"])
    guardian.guard(control, host, request["cores"], lambda: _become_host(host, functions))


def _redirect(log: int) -> None:
    """Standard output and error into the log, whatever has taken their place in Python (a test, a notebook)."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for descriptor in (nowhere, log):
        if descriptor > 2:
            os.close(descriptor)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _become_host(host: int, functions: tuple[Function | None, ...]) -> NoReturn:
    from penstock.host.host import serve

    serve(socket.socket(fileno=host), functions)
