"""Replicas on the nodes of a Ray cluster. Ray places and supervises; requests and answers do not pass through it.

    coordinator --Ray--> guardian actor --parent of--> guardian --> host --> whatever the engine starts
         \\__________________ TCP, dialled by the actor, with a secret token ___________/

One replica, one placement group of a single bundle, pinned to the planned node: a bundle can't span nodes. Inside a
placement group that the caller gives (a trainer's), a replica takes bundles of one node instead. Starting takes time
(a placement, a process, a connection), so each start has a thread, and `news` says what came of it.

All of it belongs to the coordinator's Ray job: when that is killed, Ray ends the actors and frees the groups, and each
guardian ends what is below it. Workers of Python steps stay on the coordinator's machine.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from penstock.errors import ConfigError
from penstock.executors.base import Exit, Launch, Started
from penstock.executors.local import LocalExecutor
from penstock.executors.ray_seats import RaySeats
from penstock.executors.ray_start import GREETING_LIMIT_S, KILL_LIMIT_S, RayStart
from penstock.file_names import file_name
from penstock.function_transfer import FunctionFile
from penstock.protocol.wake_queue import WakeQueue

__all__ = ["RayExecutor"]

GREETING_BYTES = 512
CLOSE_LIMIT_S = KILL_LIMIT_S + 5.0


class RayExecutor:
    """See `executors.base.Executor`.

    ray              the module, connected (`ray_cluster.connect`); who connected it ends that
    placement_group  take devices from this one only; it belongs to the caller and stays
    """

    def __init__(
        self,
        functions: FunctionFile | None = None,
        *,
        ray: Any,
        placement_group: Any = None,
        placement_limit_s: float | None = None,
    ) -> None:
        self._local = LocalExecutor(functions)
        self._seats = RaySeats(ray, placement_group, placement_limit_s)
        self._token = secrets.token_hex(16)
        self._news: WakeQueue[Started | Exit] = WakeQueue()
        self._starts: dict[tuple[str, int], RayStart] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._listener = _listen(ray)
        self._acceptor = threading.Thread(target=self._accept, name="penstock-ray-accept", daemon=True)
        self._acceptor.start()

    # ------------------------------------------------------------ Executor

    def start(self, launch: Launch, incarnation: int) -> Started:
        if launch.work is not None:
            return self._local.start(launch, incarnation)
        _make_folder(launch)
        address = self._listener.getsockname()[:2]
        start = RayStart(launch, incarnation, seats=self._seats, address=address, token=self._token, tell=self._tell)
        with self._lock:
            self._starts[launch.replica, incarnation] = start
        start.thread.start()
        return Started(launch.replica, incarnation, None, 0)

    def kill(self, replica: str, incarnation: int, *, dump_stacks: bool = False) -> None:
        start = self._starts.get((replica, incarnation))
        if start is None:
            self._local.kill(replica, incarnation, dump_stacks=dump_stacks)
        else:
            start.kill(dump_stacks)

    def news_files(self) -> list[int]:
        return [] if self._closing else [self._news.fileno(), *self._local.news_files()]

    def news(self) -> list[Started | Exit]:
        return [*self._news.take(), *self._local.news()]

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        starts = list(self._starts.values())
        for start in starts:
            start.kill(False)
        until_s = time.monotonic() + CLOSE_LIMIT_S
        for start in starts:
            start.thread.join(max(0.1, until_s - time.monotonic()))
        self._local.close()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for news in self._news.take():
            if isinstance(news, Started) and news.connection is not None:
                news.connection.close()  # no longer needed
        self._news.close()

    # ------------------------------------------------------------ what threads tell

    def _tell(self, what: Started | Exit) -> None:
        if isinstance(what, Exit):
            with self._lock:
                self._starts.pop((what.replica, what.incarnation), None)
        self._news.put(what)

    # ------------------------------------------------------------ connections

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        """A host that says the token and which start it is; anybody else is let go without a word."""
        try:
            connection.settimeout(GREETING_LIMIT_S)
            token, replica, incarnation = _greeting(connection).split(" ")
            start = self._started(replica, int(incarnation))
        except (OSError, ValueError):
            connection.close()
            return
        if start is None or not hmac.compare_digest(token, self._token):
            connection.close()
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        start.dialled(connection)

    def _started(self, written: str, incarnation: int) -> RayStart | None:
        """The start whose replica's id is written so: ids may hold blanks and line breaks."""
        starts = list(self._starts.items())
        return next(
            (start for (id_, number), start in starts if (file_name(id_), number) == (written, incarnation)), None
        )


def _listen(ray: Any) -> socket.socket:
    """On the address by which the cluster knows this node."""
    host = ray.util.get_node_ip_address()
    listener = socket.create_server((host, 0), backlog=1024)
    return listener


def _greeting(connection: socket.socket) -> str:
    """The first line, and not a byte more: what follows is the host's."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte or len(line) > GREETING_BYTES:
            raise ValueError("no greeting")
        line += byte
    return line[:-1].decode("ascii")


def _make_folder(launch: Launch) -> None:
    """For the log, which a node writes here if it sees this folder."""
    try:
        launch.log.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"can't write the log {launch.log}: {error.strerror}") from None
