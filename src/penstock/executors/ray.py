"""Replicas on the nodes of a Ray cluster. Ray places and supervises; requests and answers do not pass through it.

    coordinator --Ray--> guardian actor --parent of--> guardian --> host --> whatever the engine starts
         \\__________________ TCP, dialled by the actor, with a secret token ___________/

One replica, one placement group of a single bundle, pinned to the planned node: a bundle can't span nodes. Inside a
placement group that the caller gives (a trainer's), a replica takes bundles of one node instead. Starting takes time
(a placement, a process, a connection), so each start has a thread, and `connections` and `exits` tell what came of it.

All of it belongs to the coordinator's Ray job: when that is killed, Ray ends the actors and frees the groups, and each
guardian ends what is below it. Workers of Python steps stay on the coordinator's machine.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from penstock.errors import ConfigError, PenstockError
from penstock.executors import ray_cluster
from penstock.executors.base import Exit, Launch, Started
from penstock.executors.local import LocalExecutor
from penstock.executors.nursery import Nursery
from penstock.executors.ray_bundles import Seat, seat_in_group
from penstock.executors.ray_guardian import Holder, RayGuardian
from penstock.file_names import file_name
from penstock.protocol.wake_queue import WakeQueue

__all__ = ["RayExecutor"]

PLACEMENT_LIMIT_S = 60.0  # for the first start of a replica; a later one waits for nodes to come back
RETURN_LIMIT_S = 1500.0
ACTOR_LIMIT_S = 120.0
SETTLE_S = 3.0  # for a placement that is under way when it is not wanted any more
GREETING_BYTES = 512
NEVER_STARTED = "stopped before it started"
GREETING_LIMIT_S = 10.0
KILL_LIMIT_S = 40.0  # for an actor to say that its replica has ended: longer than its guardian may take
LOOK_S = 1.0
CLOSE_LIMIT_S = KILL_LIMIT_S + 5.0


class RayExecutor:
    """See `executors.base.Executor`.

    ray              the module, connected (`ray_cluster.connect`); who connected it ends that
    placement_group  take devices from this one only; it belongs to the caller and stays
    """

    def __init__(
        self,
        nursery: Nursery | None = None,
        *,
        ray: Any,
        placement_group: Any = None,
        placement_limit_s: float | None = None,
    ) -> None:
        self._local = LocalExecutor(nursery)
        self._ray = ray
        self._group = placement_group
        self._taken: set[int] = set()  # bundles of the caller's group that replicas hold
        self._limit_s = PLACEMENT_LIMIT_S if placement_limit_s is None else placement_limit_s
        self._nodes = {node.name: node for node in ray_cluster.nodes(self._ray)}
        self._token = secrets.token_hex(16)
        self._news: WakeQueue[Started | Exit] = WakeQueue()
        self._starts: dict[tuple[str, int], _Start] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._listener = _listen(self._ray)
        self._acceptor = threading.Thread(target=self._accept, name="penstock-ray-accept", daemon=True)
        self._acceptor.start()

    # ------------------------------------------------------------ Executor

    def start(self, launch: Launch, incarnation: int) -> Started:
        if launch.work is not None:
            return self._local.start(launch, incarnation)
        _make_folder(launch)
        start = _Start(self, launch, incarnation)
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

    def tell(self, what: Started | Exit) -> None:
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

    def _started(self, written: str, incarnation: int) -> _Start | None:
        """The start whose replica's id is written so: ids may hold blanks and line breaks."""
        starts = list(self._starts.items())
        return next(
            (start for (id_, number), start in starts if (file_name(id_), number) == (written, incarnation)), None
        )

    # ------------------------------------------------------------ places

    def seat(self, launch: Launch, incarnation: int) -> Seat:
        """Where the replica goes: its planned node, or where there is room when that is gone."""
        gpus = len(launch.config.devices)
        cpus = 0 if gpus else len(launch.config.cores)
        if self._group is not None:
            with self._lock:
                seat = seat_in_group(self._ray, self._group, self._taken, gpus, cpus)
                self._taken.update(seat.bundles)
            return seat
        node = self._nodes.get(_planned_node(launch))
        return Seat(None, (0,), node.id if node is not None and incarnation <= 1 else "", gpus, cpus)

    def release(self, seat: Seat) -> None:
        if self._group is not None:
            with self._lock:
                self._taken.difference_update(seat.bundles)

    @property
    def ray(self) -> Any:
        return self._ray

    @property
    def callers_group(self) -> Any:
        return self._group

    @property
    def listens_at(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()[:2]
        return host, port

    @property
    def token(self) -> str:
        return self._token

    def placement_limit_s(self, incarnation: int) -> float:
        return self._limit_s if incarnation <= 1 else RETURN_LIMIT_S

    def node_name(self, number: str) -> str:
        for node in self._nodes.values():
            if node.id == number:
                return node.name
        self._nodes = {node.name: node for node in ray_cluster.nodes(self._ray)}
        return next((node.name for node in self._nodes.values() if node.id == number), number[:8])


class _Start:
    """One start of one replica, from its placement to its end, in a thread of its own."""

    def __init__(self, executor: RayExecutor, launch: Launch, incarnation: int) -> None:
        self._executor, self._launch, self._incarnation = executor, launch, incarnation
        self._killed = threading.Event()
        self._kill_by_s = 0.0  # when its actor is given up, once it was asked to stop
        self._dump = False
        self._actor: Any = None
        self._actors: list[Any] = []
        self._group: Any = None
        self._reserved = False  # the group is known to have its bundle
        self._connection: socket.socket | None = None
        self._lock, self._over = threading.Lock(), False
        self._devices: tuple[str, ...] = ()
        name = f"penstock-{launch.replica}"
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def kill(self, dump_stacks: bool) -> None:
        self._dump = dump_stacks
        if not self._killed.is_set():
            self._kill_by_s = time.monotonic() + KILL_LIMIT_S
            self._killed.set()
        actor = self._actor
        if actor is not None:
            with suppress(Exception):
                actor.kill.remote(dump_stacks)

    def dialled(self, connection: socket.socket) -> None:
        """Its host is there; the coordinator is notified once its location is known."""
        with self._lock:
            if not self._over:
                self._connection = connection
                return
        connection.close()

    def _run(self) -> None:
        seat: Seat | None = None
        try:
            if self._killed.is_set():  # nothing is asked of Ray only to be given back at once
                raise StartAborted(NEVER_STARTED)
            seat = self._executor.seat(self._launch, self._incarnation)
            status, tail = self._live(seat)
        except StartAborted as given:
            status, tail = 1, str(given)
        except PenstockError as error:
            status, tail = 1, error.message
        except Exception as error:  # Ray's own tree: an actor or a node that died, a group that was removed
            status, tail = -9, f"{type(error).__name__}: {_first_line(error)}"
        finally:
            self._leave(seat)
        self._executor.tell(Exit(self._launch.replica, self._incarnation, status, tail))

    def _live(self, seat: Seat) -> tuple[int, str]:
        launch = self._launch
        self._place(seat)
        places = self._wait_for([actor.place.remote() for actor in self._actors], ACTOR_LIMIT_S, "its actor starts")
        self._check(seat, places)
        gpus = [str(number) for _, numbers in places for number in numbers]
        node = self._executor.node_name(places[0][0])
        self._devices = tuple(f"{node}/gpu:{number}" for number in gpus) or tuple(
            f"{node}/cpu:{core}" for core in launch.config.cores
        )
        environment = {**launch.env, **({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})}
        self._actor = self._actors[0]
        started = self._actor.start.remote(
            launch.replica,
            self._incarnation,
            self._executor.listens_at,
            self._executor.token,
            launch.python or "",
            environment,
            list(launch.config.cores),
            str(launch.log.absolute()),
        )
        self._wait_for([started], ACTOR_LIMIT_S, "its host starts")
        if self._killed.is_set():
            self._actor.kill.remote(self._dump)
        self._announce()
        return self._wait_for_end(self._actor.wait.remote())

    def _wait_for_end(self, ended: Any) -> tuple[int, str]:
        """Its status and the end of its log. An actor that does not respond to a stop is abandoned: it may be
        suspended, or its node hang. Ray ends it, and what is below it ends with it."""
        ray = self._executor.ray
        while not ray.wait([ended], timeout=LOOK_S)[0]:
            if self._killed.is_set() and time.monotonic() > self._kill_by_s:
                return -9, f"its guardian did not stop it within {KILL_LIMIT_S:.0f} s"
        status, tail = ray.get(ended)
        return int(status), str(tail)

    def _announce(self) -> None:
        until_s = time.monotonic() + GREETING_LIMIT_S
        while self._connection is None and time.monotonic() < until_s:
            time.sleep(0.005)  # it has dialled already: only the greeting is under way
        if self._connection is None:
            raise StartAborted(
                f"{self._launch.replica} did not connect back to {self._executor.listens_at[0]}; its node must reach "
                "the coordinator's address"
            )
        connection, self._connection = self._connection, None  # from here on it is whose `news` hands it out
        self._executor.tell(Started(self._launch.replica, self._incarnation, connection, 0, self._devices))

    def _place(self, seat: Seat) -> None:
        """Reserve the bundle, or take the caller's, and put the actors there."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        ray = self._executor.ray
        group = self._executor.callers_group
        if group is None:
            group = self._group = _reserve(seat)
            limit_s = self._executor.placement_limit_s(self._incarnation)
            self._wait_for([group.ready()], limit_s, "", pending=seat)
            self._reserved = True
        for number, bundle in enumerate(seat.bundles):
            made = ray.remote(RayGuardian if number == 0 else Holder)
            options: dict[str, Any] = {
                "num_gpus": seat.gpus // len(seat.bundles) if seat.gpus else 0,
                "num_cpus": seat.cpus if number == 0 else 0,
                "max_concurrency": 4,
                "scheduling_strategy": PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=bundle, placement_group_capture_child_tasks=False
                ),
            }
            self._actors.append(made.options(**options).remote())

    def _wait_for(self, refs: Sequence[Any], limit_s: float, what: str, pending: Seat | None = None) -> list[Any]:
        """Their values; gives up when it is to be killed, or after the time."""
        ray, until_s = self._executor.ray, time.monotonic() + limit_s
        left = list(refs)
        while left:
            if self._killed.is_set():
                raise StartAborted(NEVER_STARTED)
            _, left = ray.wait(left, num_returns=len(left), timeout=0.2)
            if left and time.monotonic() > until_s:
                if pending is not None:
                    raise StartAborted(self._pending(pending, limit_s))
                raise StartAborted(f"{self._launch.replica}: {limit_s:.0f} s passed before {what}")
        return list(ray.get(list(refs)))

    def _pending(self, seat: Seat, limit_s: float) -> str:
        need = f"{seat.gpus} GPUs" if seat.gpus else f"{seat.cpus} CPUs"
        where = f"node {self._executor.node_name(seat.node)}" if seat.node else "one node"
        free = ray_cluster.free_map(ray_cluster.nodes(self._executor.ray))
        return (
            f"{self._launch.replica} waited {limit_s:.0f} s for {need} on {where}; free: {free}. "
            "Another job may use them: wait for it, or set fewer replicas"
        )

    def _check(self, seat: Seat, places: Sequence[tuple[str, list[int]]]) -> None:
        """What each rank reports has to be what was planned: one node, that node, so many devices."""
        found = sorted({node for node, _ in places})
        count = sum(len(numbers) for _, numbers in places)
        if len(found) > 1 or (seat.node and found != [seat.node]) or count != seat.gpus:
            names = ", ".join(self._executor.node_name(node) for node in found)
            wanted = self._executor.node_name(seat.node) if seat.node else "one node"
            raise StartAborted(
                f"{self._launch.replica} was placed on {names} with {count} GPUs, "
                f"but the plan has {seat.gpus} on {wanted}"
            )

    def _leave(self, seat: Seat | None) -> None:
        with self._lock:
            self._over = True
        if self._connection is not None:
            self._connection.close()  # it connected, but was not announced
        ray = self._executor.ray
        for actor in self._actors:
            with suppress(Exception):
                ray.kill(actor)
        if self._group is not None:
            from ray.util.placement_group import remove_placement_group

            with suppress(Exception):
                if not self._reserved:  # Ray may lose count of devices of a group that is removed while it gets them
                    ray.wait([self._group.ready()], timeout=SETTLE_S)
                remove_placement_group(self._group)
        if seat is not None:
            self._executor.release(seat)


class StartAborted(Exception):
    """A replica could not be started; the message is shown to users."""


def _reserve(seat: Seat) -> Any:
    from ray.util.placement_group import placement_group

    bundle = {"GPU": float(seat.gpus)} if seat.gpus else {"CPU": float(seat.cpus)} if seat.cpus else {"CPU": 0.001}
    selector = [{"ray.io/node-id": seat.node}] if seat.node else None
    return placement_group([bundle], strategy="STRICT_PACK", bundle_label_selector=selector)


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


def _planned_node(launch: Launch) -> str:
    return launch.nodes[0] if launch.nodes else ""


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
