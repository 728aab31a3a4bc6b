"""Where the replicas of one run go in a Ray cluster: nodes by name, and what is taken of the caller's group."""

from __future__ import annotations

import threading
from typing import Any

from penstock.executors import ray_cluster
from penstock.executors.base import Launch
from penstock.executors.ray_bundles import Seat, seat_in_group

__all__ = ["PLACEMENT_LIMIT_S", "RaySeats"]

PLACEMENT_LIMIT_S = 60.0  # for the first start of a replica; a later one waits for nodes to come back
RETURN_LIMIT_S = 1500.0


class RaySeats:
    """ray: the module, connected. group: of the caller, the only one to take devices from; None: of the cluster."""

    def __init__(self, ray: Any, group: Any, limit_s: float | None = None) -> None:
        self.ray, self.group = ray, group
        self._taken: set[int] = set()  # bundles of the caller's group that replicas hold
        self._limit_s = PLACEMENT_LIMIT_S if limit_s is None else limit_s
        self._nodes = {node.name: node for node in ray_cluster.nodes(ray)}
        self._lock = threading.Lock()

    def take(self, launch: Launch, incarnation: int) -> Seat:
        """Where the replica goes: its planned node, or where there is room when that is gone."""
        gpus = len(launch.config.devices)
        cpus = 0 if gpus else len(launch.config.cores)
        if self.group is not None:
            with self._lock:
                seat = seat_in_group(self.ray, self.group, self._taken, gpus, cpus)
                self._taken.update(seat.bundles)
            return seat
        node = self._nodes.get(launch.nodes[0] if launch.nodes else "")
        return Seat(None, (0,), node.id if node is not None and incarnation <= 1 else "", gpus, cpus)

    def release(self, seat: Seat) -> None:
        if self.group is not None:
            with self._lock:
                self._taken.difference_update(seat.bundles)

    def limit_s(self, incarnation: int) -> float:
        """How long a placement may take."""
        return self._limit_s if incarnation <= 1 else RETURN_LIMIT_S

    def node_name(self, number: str) -> str:
        """The name of the node with this id."""
        for node in self._nodes.values():
            if node.id == number:
                return node.name
        self._nodes = {node.name: node for node in ray_cluster.nodes(self.ray)}
        return next((node.name for node in self._nodes.values() if node.id == number), number[:8])

    def free(self) -> str:
        """What the nodes have left, for messages."""
        return ray_cluster.free_map(ray_cluster.nodes(self.ray))
