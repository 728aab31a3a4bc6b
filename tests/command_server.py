"""`penstock ...` as processes that begin with everything imported: an interpreter and its imports take longer than most
runs of these tests.

A server without threads imports the command line once, and forks. What it forks is a process like any other, with a
session, signals, a folder, an environment and an exit status of its own. What happens while the command line is
imported is tested in tests/cli, by interpreters of their own.
"""

from __future__ import annotations

import atexit
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from penstock import faults

PACKAGES = [
    f"penstock.{name}" for name in ("cli", "core", "data", "ledger", "planning", "report", "runtime", "executors")
]
MAX_MESSAGE_BYTES = 1 << 20
POLL_S = 0.005


class Command:
    """A command that was started: what the tests use of subprocess.Popen."""

    def __init__(self, server: Server, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ended(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until_s = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until_s is not None and time.monotonic() > until_s:
                raise subprocess.TimeoutExpired("penstock", timeout or 0.0)
            self._server.wait(POLL_S * 20)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Server:
    """The end of this process."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, str(Path(__file__)), str(other.fileno())]
        self._process = subprocess.Popen(
            command, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/"
        )
        other.close()
        self._ended: dict[int, int] = {}

    def start(self, arguments: Sequence[str], folder: Path, stdout: str | Path, stderr: str | Path) -> Command:
        asked = {
            "arguments": [*arguments],
            "folder": str(folder),
            "files": [os.devnull, str(stdout), str(stderr)],
            "environment": dict(os.environ),
        }
        for name in (stdout, stderr):
            Path(name).open("w").close()  # they are read before the command has begun
        self._socket.send(json.dumps(asked).encode())
        while (told := self._take()) is None or "pid" not in told:
            pass
        return Command(self, told["pid"])

    def ended(self, pid: int) -> int | None:
        """The exit code of a command, negative for a signal; None while it is there."""
        while self.wait(0.0):
            self._take()
        return self._ended.pop(pid, None)

    def wait(self, limit_s: float) -> bool:
        return bool(select.select([self._socket], [], [], limit_s)[0])

    def _take(self) -> dict[str, Any] | None:
        message = self._socket.recv(MAX_MESSAGE_BYTES)
        assert message, "the server of commands has ended"
        told: dict[str, Any] = json.loads(message)
        if "ended" in told:
            self._ended[told["ended"]] = os.waitstatus_to_exitcode(told["status"])
        return told

    def close(self) -> None:
        self._socket.close()
        self._process.wait(60)


_SERVERS: dict[int, Server] = {}  # by process, since a test's process may be forked as well


def start_command(
    *arguments: str, folder: Path, stdout: str | Path = os.devnull, stderr: str | Path = os.devnull
) -> Command:
    """`penstock ARGUMENTS` in `folder`, with the environment of now, its output in these files."""
    server = _SERVERS.get(os.getpid())
    if server is None:
        server = _SERVERS[os.getpid()] = Server()
        atexit.register(server.close)
    return server.start(arguments, folder, stdout, stderr)


def run_command(*arguments: str, folder: Path, limit_s: float) -> subprocess.CompletedProcess[str]:
    """`penstock ARGUMENTS` to its end, as subprocess.run would."""
    files = [folder / f".{name}-{time.monotonic_ns()}" for name in ("stdout", "stderr")]
    try:
        command = start_command(*arguments, folder=folder, stdout=files[0], stderr=files[1])
        try:
            code = command.wait(limit_s)
        except subprocess.TimeoutExpired:
            command.kill()
            raise
        return subprocess.CompletedProcess(["penstock", *arguments], code, *(file.read_text() for file in files))
    finally:
        for file in files:
            file.unlink(missing_ok=True)


# ---------------------------------------------------------------- in the server


def import_all() -> None:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy would start threads
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # as the command line does before Arrow is loaded
    for package in PACKAGES:
        for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
            if "ray" not in module.name and not module.name.endswith("__main__"):
                import_module(module.name)
    import_module("penstock.engines.registry")
    with suppress(ImportError):
        import_module("pandas")  # Arrow imports it where it is installed
    assert threading.active_count() == 1, "a process with threads can't be forked from"


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for each that is asked for: what is asked, in the child; None at the end, in the server."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(write)
    while True:
        ready, _, _ = select.select([connection, read], [], [])
        if read in ready:
            os.read(read, 4096)
            with suppress(ChildProcessError):
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    connection.send(json.dumps({"ended": ended[0], "status": ended[1]}).encode())
        if connection in ready:
            message = connection.recv(MAX_MESSAGE_BYTES)
            if not message:
                return None
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for descriptor in (read, write):
                    os.close(descriptor)
                connection.close()
                return json.loads(message)
            connection.send(json.dumps({"pid": pid}).encode())


def become(asked: dict[str, Any]) -> int:
    """The command, in the child."""
    os.setsid()
    for target, name in enumerate(asked["files"]):
        descriptor = os.open(name, os.O_RDONLY if target == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.path[0] = asked["folder"]
    sys.argv = ["penstock", *asked["arguments"]]
    faults.arm(os.environ.get("PENSTOCK_FAULTPOINT"))  # the module was imported with another environment
    from penstock.cli.entry import main

    return main()


def main() -> int:
    import_all()
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    return 0 if asked is None else become(asked)


if __name__ == "__main__":
    sys.exit(main())
