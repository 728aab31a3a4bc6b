"""One start of one replica on a Ray cluster: its placement group, its guardian actor, its host, its end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from penstock.errors import PenstockError
from penstock.executors.base import Exit, Launch, Started
from penstock.executors.ray_bundles import Seat
from penstock.executors.ray_guardian import Holder, RayGuardian
from penstock.executors.ray_seats import RaySeats

__all__ = ["GREETING_LIMIT_S", "KILL_LIMIT_S", "RayStart"]

ACTOR_LIMIT_S = 120.0
SETTLE_S = 3.0  # for a placement that is under way when it is not wanted any more
NEVER_STARTED = "stopped before it started"
GREETING_LIMIT_S = 10.0
KILL_LIMIT_S = 40.0  # for an actor to say that its replica has ended: longer than its guardian may take
LOOK_S = 1.0


class RayStart:
    """One start of one replica, from its placement to its end, in a thread of its own.

    address, token  where its host dials, and what it says there
    tell            is called, from the thread, when it can be spoken to and when it has ended
    """

    def __init__(
        self,
        launch: Launch,
        incarnation: int,
        *,
        seats: RaySeats,
        address: tuple[str, int],
        token: str,
        tell: Callable[[Started | Exit], None],
    ) -> None:
        self._launch, self._incarnation = launch, incarnation
        self._seats, self._address, self._token, self._tell = seats, address, token, tell
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
            seat = self._seats.take(self._launch, self._incarnation)
            status, tail = self._live(seat)
        except StartAborted as given:
            status, tail = 1, str(given)
        except PenstockError as error:
            status, tail = 1, error.message
        except Exception as error:  # Ray's own tree: an actor or a node that died, a group that was removed
            status, tail = -9, f"{type(error).__name__}: {_first_line(error)}"
        finally:
            self._leave(seat)
        self._tell(Exit(self._launch.replica, self._incarnation, status, tail))

    def _live(self, seat: Seat) -> tuple[int, str]:
        launch = self._launch
        self._place(seat)
        places = self._wait_for([actor.place.remote() for actor in self._actors], ACTOR_LIMIT_S, "its actor starts")
        self._check(seat, places)
        gpus = [str(number) for _, numbers in places for number in numbers]
        node = self._seats.node_name(places[0][0])
        self._devices = tuple(f"{node}/gpu:{number}" for number in gpus) or tuple(
            f"{node}/cpu:{core}" for core in launch.config.cores
        )
        environment = {**launch.env, **({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})}
        self._actor = self._actors[0]
        started = self._actor.start.remote(
            launch.replica,
            self._incarnation,
            self._address,
            self._token,
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
        ray = self._seats.ray
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
                f"{self._launch.replica} did not connect back to {self._address[0]}; its node must reach "
                "the coordinator's address"
            )
        connection, self._connection = self._connection, None  # from here on it is whose `news` hands it out
        self._tell(Started(self._launch.replica, self._incarnation, connection, 0, self._devices))

    def _place(self, seat: Seat) -> None:
        """Reserve the bundle, or take the caller's, and put the actors there."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        ray = self._seats.ray
        group = self._seats.group
        if group is None:
            group = self._group = _reserve(seat)
            limit_s = self._seats.limit_s(self._incarnation)
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
        ray, until_s = self._seats.ray, time.monotonic() + limit_s
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
        where = f"node {self._seats.node_name(seat.node)}" if seat.node else "one node"
        return (
            f"{self._launch.replica} waited {limit_s:.0f} s for {need} on {where}; free: {self._seats.free()}. "
            "Another job may use them: wait for it, or set fewer replicas"
        )

    def _check(self, seat: Seat, places: Sequence[tuple[str, list[int]]]) -> None:
        """What each rank reports has to be what was planned: one node, that node, so many devices."""
        found = sorted({node for node, _ in places})
        count = sum(len(numbers) for _, numbers in places)
        if len(found) > 1 or (seat.node and found != [seat.node]) or count != seat.gpus:
            names = ", ".join(self._seats.node_name(node) for node in found)
            wanted = self._seats.node_name(seat.node) if seat.node else "one node"
            raise StartAborted(
                f"{self._launch.replica} was placed on {names} with {count} GPUs, "
                f"but the plan has {seat.gpus} on {wanted}"
            )

    def _leave(self, seat: Seat | None) -> None:
        with self._lock:
            self._over = True
        if self._connection is not None:
            self._connection.close()  # it connected, but was not announced
        ray = self._seats.ray
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
            self._seats.release(seat)


class StartAborted(Exception):
    """A replica could not be started; the message is shown to users."""


def _reserve(seat: Seat) -> Any:
    from ray.util.placement_group import placement_group

    bundle = {"GPU": float(seat.gpus)} if seat.gpus else {"CPU": float(seat.cpus)} if seat.cpus else {"CPU": 0.001}
    selector = [{"ray.io/node-id": seat.node}] if seat.node else None
    return placement_group([bundle], strategy="STRICT_PACK", bundle_label_selector=selector)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
