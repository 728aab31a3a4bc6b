"""The Ray actor beside one replica: it connects to the coordinator, starts the local guardian, and tells the end.

Everything that goes in is text or a number, and so is what comes out; requests and answers do not pass through Ray.
The actor dies with the coordinator's job, its guardian with the actor, and the host's whole process tree with that.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import penstock.host.boot
from penstock.executors import guardian
from penstock.executors.guarded import Guarded
from penstock.file_names import file_name

__all__ = ["Holder", "RayGuardian"]

DIAL_LIMIT_S = 20.0
LOOK_S = 1.0
SILENCE_LIMIT_MS = 30_000  # of a coordinator's machine that is gone without a word: then the host ends
TCP_USER_TIMEOUT = 18  # of linux/tcp.h, for Pythons that do not name it
STARTED, REFUSED = "started", "refused"


class Holder:
    """Holds one bundle of a replica that spans several, and tells which device that is."""

    def place(self) -> tuple[str, list[int]]:
        return here()


def here() -> tuple[str, list[int]]:
    """The node that this runs on, and the devices that Ray gave it."""
    import ray

    return ray.get_runtime_context().get_node_id(), [int(each) for each in ray.get_gpu_ids()]


class RayGuardian:
    """One start of one replica. `start` returns at once, `wait` when everything has ended."""

    def __init__(self) -> None:
        self._guarded: Guarded | None = None

    def place(self) -> tuple[str, list[int]]:
        return here()

    def start(
        self,
        replica: str,
        incarnation: int,
        address: tuple[str, int],
        token: str,
        python: str,
        environment: dict[str, str],
        cores: list[int],
        log: str,
    ) -> str:
        """Dial back, and start the host on that connection. Returns the log's path on this node. Raises OSError."""
        connection = _dial(address, f"{token} {file_name(replica)} {incarnation}\n")
        path = _log_path(log)
        path.parent.mkdir(parents=True, exist_ok=True)
        control, watched = socket.socketpair()
        with connection, watched, path.open("ab") as output:
            begins = output.tell()
            here_cores = sorted(set(cores) & os.sched_getaffinity(0))
            bound = ",".join(map(str, here_cores)) if len(here_cores) == len(cores) and cores else "-"
            command = [python or sys.executable, "-P", str(Path(penstock.host.boot.__file__).resolve())]
            process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(Path(guardian.__file__).resolve())),
                    *(str(watched.fileno()), str(connection.fileno()), bound),
                    *(*command, "--fd", str(connection.fileno())),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(watched.fileno(), connection.fileno()),
                start_new_session=True,
                env=_environment(python, environment),
            )
        self._guarded = Guarded(replica, incarnation, control, path, begins, process)
        return str(path)

    def kill(self, dump_stacks: bool) -> None:
        if self._guarded is not None:
            self._guarded.kill(dump_stacks)

    def wait(self) -> tuple[int, str]:
        """(status, end of the log) once the replica's last process is gone."""
        import time

        assert self._guarded is not None
        while self._guarded.ended is None:
            self._guarded.wait(time.monotonic() + LOOK_S)  # `kill` comes in another thread
        return self._guarded.ended.status, self._guarded.ended.tail


def _dial(address: tuple[str, int], greeting: str) -> socket.socket:
    connection = socket.create_connection(address, timeout=DIAL_LIMIT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_USER_TIMEOUT", TCP_USER_TIMEOUT), SILENCE_LIMIT_MS)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.sendall(greeting.encode())
    connection.settimeout(None)
    return connection


def _log_path(wanted: str) -> Path:
    """Where the run keeps its logs, if this node sees that folder, else a folder of its own."""
    path = Path(wanted)  # its name is made safe by `logs.log_of`
    if os.access(path.parent, os.W_OK):
        return path
    return Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}" / "logs" / path.name


def _environment(python: str, bound: dict[str, str]) -> dict[str, str]:
    environment = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **os.environ, **bound}
    if python:
        for name in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"):
            environment.pop(name, None)
    return environment
