"""Targets of a run: the resources to plan with, and the executor that starts replicas there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from penstock.errors import UsageError
from penstock.executors.base import Executor
from penstock.executors.leases import DeviceLeases
from penstock.executors.local import LocalExecutor
from penstock.function_transfer import FunctionFile
from penstock.planning.run_plan import RunPlan, plan, plan_here
from penstock.spec.served import Workload

__all__ = ["EXECUTORS", "LocalTarget", "RayTarget", "Target", "open_target"]

EXECUTORS = ("local", "ray")


class Target(Protocol):
    def plan(self, workload: Workload, cut: Sequence[int] = ()) -> RunPlan:
        """Raises as `run_plan.plan`."""
        ...

    def executor(self, planned: RunPlan) -> Executor:
        """Raises ConfigError for a function that workers can neither import nor get by value."""
        ...

    def close(self) -> None: ...


def open_target(executor: str, holder: str, *, ray_address: str | None = None, placement_group: Any = None) -> Target:
    """holder: who takes the devices, for the messages of others. Raises UsageError for an executor that is none."""
    if executor == "local":
        return LocalTarget(holder)
    if executor == "ray":
        return RayTarget(ray_address, placement_group)
    raise UsageError(f"unknown executor '{executor}'; use one of {', '.join(EXECUTORS)}")


class LocalTarget:
    """This machine."""

    def __init__(self, holder: str) -> None:
        self._leases, self._holder = DeviceLeases(), holder

    def plan(self, workload: Workload, cut: Sequence[int] = ()) -> RunPlan:
        return plan_here(workload, self._leases, self._holder, cut)

    def executor(self, planned: RunPlan) -> Executor:
        return LocalExecutor(_functions(planned))

    def close(self) -> None:
        self._leases.release()


class RayTarget:
    """The nodes of a Ray cluster, or those of a placement group in it. Raises MissingDependency, ConfigError."""

    def __init__(self, address: str | None = None, placement_group: Any = None) -> None:
        from penstock.executors.ray_cluster import connect

        self._ray, self._ours = connect(address)
        self._group = placement_group

    def plan(self, workload: Workload, cut: Sequence[int] = ()) -> RunPlan:
        from penstock.executors.ray_bundles import nodes_of_group
        from penstock.executors.ray_cluster import nodes, refuse_empty
        from penstock.planning.ray_nodes import ray_nodes

        found = nodes(self._ray)
        refuse_empty(found)
        if self._group is not None:
            found = nodes_of_group(self._ray, self._group, found)
        return plan(workload, ray_nodes(self._ray, found), cut)

    def executor(self, planned: RunPlan) -> Executor:
        from penstock.executors.ray import RayExecutor

        return RayExecutor(_functions(planned), ray=self._ray, placement_group=self._group)

    def close(self) -> None:
        if self._ours:
            self._ours = False
            self._ray.shutdown()


def _functions(planned: RunPlan) -> FunctionFile | None:
    if not planned.by_value:
        return None
    return FunctionFile([planned.by_value.get(step) for step in range(max(planned.by_value) + 1)])
