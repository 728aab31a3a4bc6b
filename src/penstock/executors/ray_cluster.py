"""A Ray cluster as far as placement needs it: connecting to it, its nodes, what is free on them."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.distribution import install_command
from penstock.errors import ConfigError, MissingDependency, PlanError

__all__ = ["RayNode", "connect", "free_map", "nodes"]

REACH_LIMIT_S = 5.0


class RayNode(msgspec.Struct, frozen=True):
    """One live node. name: for people, unique. gpus, cpus: of the node; free_gpus, free_cpus: not held by
    anybody."""

    id: str
    name: str
    address: str
    gpus: int
    cpus: int
    free_gpus: int
    free_cpus: int


def connect(address: str | None) -> tuple[Any, bool]:
    """(the ray module, whether this call connected it). `address` None: RAY_ADDRESS, else a fresh Ray on this machine.

    Raises MissingDependency, ConfigError: not reachable, or of another version.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingDependency(f"the executor 'ray' needs Ray: {install_command('ray')}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return ray, False
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is not None:
        _reach(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "namespace": "penstock"}
    if address is None:
        options["include_dashboard"] = False
    try:
        ray.init(address=address or "local", **options)
    except (RuntimeError, ConnectionError, ValueError, TimeoutError) as error:
        raise ConfigError(_describe(address, ray.__version__, error)) from None
    return ray, True


def _describe(address: str | None, version: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "ersion mismatch" in text:
        return f"the Ray cluster at {address} runs another version than the local Ray {version}: {text}"
    where = f"the Ray cluster at {address} can't be reached" if address else "Ray failed to start on this machine"
    return f"{where}: {text or type(error).__name__}; `ray status` shows whether it runs"


def _reach(address: str) -> None:
    """Raises ConfigError at once if nothing listens there; Ray itself would retry for a long time."""
    if address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal() or not host:
        raise ConfigError(f"the address of a Ray cluster is HOST:PORT or 'auto', got {address!r}")
    if address.startswith("ray://"):
        raise ConfigError(
            f"{address!r} is a Ray Client address: hosts can't connect back through it. Run on a node of the "
            "cluster, with "
            "--ray-address auto"
        )
    try:
        socket.create_connection((host, int(port)), timeout=REACH_LIMIT_S).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray cluster responds at {address} ({error.strerror or error}); "
            "start one with `ray start --head`, or omit the address for a new Ray instance on this machine"
        ) from None


def nodes(ray: Any) -> list[RayNode]:
    """The live nodes, by name."""
    alive = [each for each in ray.nodes() if each["Alive"]]
    names = _names(alive)
    free = _free(ray)
    found = []
    for each in alive:
        number, total, left = each["NodeID"], each["Resources"], free.get(each["NodeID"], {})
        found.append(
            RayNode(
                id=number,
                name=names[number],
                address=each["NodeManagerAddress"],
                gpus=int(total.get("GPU", 0)),
                cpus=int(total.get("CPU", 0)),
                free_gpus=int(left.get("GPU", 0)),
                free_cpus=int(left.get("CPU", 0)),
            )
        )
    return sorted(found, key=lambda node: node.name)


def _names(alive: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The host's name where that is unique, else with the beginning of the node's id."""
    hosts = [each["NodeManagerHostname"] for each in alive]
    return {
        each["NodeID"]: host if hosts.count(host) == 1 else f"{host}-{each['NodeID'][:8]}"
        for each, host in zip(alive, hosts, strict=True)
    }


def _free(ray: Any) -> dict[str, dict[str, float]]:
    """Node -> free resources, without those of placement groups."""
    from ray._private.state import available_resources_per_node

    found: dict[str, dict[str, float]] = available_resources_per_node()
    return found


def free_map(found: Sequence[RayNode]) -> str:
    """What is free where, one line."""
    parts = [
        f"{node.name} {node.free_gpus} of {node.gpus} GPUs, {node.free_cpus} of {node.cpus} CPUs" for node in found
    ]
    return "; ".join(parts) or "the cluster has no live node"


def refuse_empty(found: Sequence[RayNode]) -> None:
    if not found:
        raise PlanError("the Ray cluster has no live node; `ray status` shows it")
