"""Replicas as processes of this machine.

    coordinator --control socket--> guardian --parent of--> host --parent of--> whatever the engine starts
         \\______________________ connection __________________/

The guardian ends everything below it when the coordinator is gone or the host has ended, and a keeper above it does
where the guardian was killed (see `guardian`); what even that can't is ended by the next start (`leftovers`). A host
starts with this very Penstock under this interpreter or another (see `host.boot`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import penstock.host.boot
from penstock.errors import ConfigError, UsageError
from penstock.executors import guardian
from penstock.executors.base import Exit, Launch, Started
from penstock.executors.descriptors import occupy_standard
from penstock.executors.guarded import KILL_LIMIT_S, Guarded
from penstock.function_transfer import FunctionFile

__all__ = ["LocalExecutor"]

CLOSE_LIMIT_S = KILL_LIMIT_S + 5.0

_GUARDIAN_FILE = str(Path(guardian.__file__).resolve())
_BOOT_FILE = str(Path(penstock.host.boot.__file__).resolve())


class LocalExecutor:
    """See `executors.base.Executor`. functions: what its workers can't import; closed with this."""

    def __init__(self, functions: FunctionFile | None = None) -> None:
        occupy_standard()
        self._functions = functions
        self._running: dict[tuple[str, int], Guarded] = {}
        self._ended_keepers: list[subprocess.Popen[bytes]] = []  # keepers of those that have ended, not yet reaped

    def start(self, launch: Launch, incarnation: int) -> Started:
        """Raises ConfigError for a log that can't be written or an interpreter that isn't there."""
        if (launch.replica, incarnation) in self._running:
            raise UsageError(f"{launch.replica} was started as incarnation {incarnation} before")
        _check_interpreter(launch)
        log = _open_log(launch.log)
        connection, host = _socket_pair()
        control, watched = _socket_pair()
        try:
            start = os.fstat(log).st_size
            functions = self._functions.descriptor if self._functions is not None and launch.work is not None else None
            process = _spawn(launch, watched.fileno(), host.fileno(), log, functions)
        except BaseException:
            connection.close()
            control.close()
            raise
        finally:
            host.close()
            watched.close()
            os.close(log)
        self._running[launch.replica, incarnation] = Guarded(
            launch.replica, incarnation, control, launch.log, start, process
        )
        connection.setblocking(False)
        return Started(launch.replica, incarnation, connection, process.pid)

    def kill(self, replica: str, incarnation: int, *, dump_stacks: bool = False) -> None:
        guarded = self._running.get((replica, incarnation))
        if guarded is not None:
            guarded.kill(dump_stacks)

    def news_files(self) -> list[int]:
        return [guarded.control.fileno() for guarded in self._running.values()]

    def news(self) -> list[Started | Exit]:
        """Exits only: a host is born connected."""
        self._reap()
        ended = [guarded for guarded in self._running.values() if guarded.look() is not None]
        for guarded in ended:
            self._forget(guarded)
        return [guarded.ended for guarded in ended if guarded.ended is not None]

    def close(self) -> None:
        for guarded in self._running.values():
            guarded.kill()
        until_s = time.monotonic() + CLOSE_LIMIT_S
        for guarded in list(self._running.values()):
            guarded.wait(until_s)
            guarded.control.close()
            self._forget(guarded)
        for process in self._ended_keepers:
            process.send_signal(signal.SIGCONT)
            try:
                process.wait(max(0.1, until_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._ended_keepers.clear()
        if self._functions is not None:
            self._functions.close()

    def _forget(self, guarded: Guarded) -> None:
        del self._running[guarded.replica, guarded.incarnation]
        self._ended_keepers.append(guarded.keeper)

    def _reap(self) -> None:
        """A keeper exits just after its guardian's last message; those still running are polled again next time."""
        self._ended_keepers = [process for process in self._ended_keepers if process.poll() is None]


def _spawn(launch: Launch, control: int, host: int, log: int, functions: int | None) -> subprocess.Popen[bytes]:
    python = launch.python or sys.executable
    cores = ",".join(map(str, launch.config.cores)) or "-"
    command = [python, "-P", _BOOT_FILE, "--fd", str(host)]
    inherited = [control, host]
    if functions is not None:
        command += ["--functions", str(functions)]
        inherited.append(functions)
    return subprocess.Popen(
        [sys.executable, "-I", "-S", _GUARDIAN_FILE, str(control), str(host), cores, *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=inherited,
        start_new_session=True,
        env=_environment(launch),
    )


def _environment(launch: Launch) -> dict[str, str]:
    # faulthandler: the engine's own Python children, too, print their stacks when the guardian asks for them.
    environment = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **os.environ}
    if launch.work is not None and launch.python is None:
        # A step's function must be importable where the pipeline was: same interpreter, same path, same order.
        environment["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    elif launch.python is not None:
        environment.pop("PYTHONHOME", None)
        environment.pop("PYTHONPATH", None)
        environment.pop("VIRTUAL_ENV", None)
    return {**environment, **launch.env}


def _check_interpreter(launch: Launch) -> None:
    if launch.python is not None and not os.access(launch.python, os.X_OK):
        raise ConfigError(
            f"no such interpreter {launch.python!r} (`python:` of the model of {launch.replica}); "
            "give the path of a Python 3.11 or newer, for instance VENV/bin/python"
        )


def _open_log(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"can't write the log {path}: {error.strerror}") from None


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
