"""Targets of a run: the resources to plan with, and the executor that starts replicas there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from penstock.errors import UsageError
from penstock.executors.base import Executor
from penstock.executors.leases import DeviceLeases
from penstock.executors.local import LocalExecutor
from penstock.executors.nursery import Nursery
from penstock.planning.run_plan import RunPlan, forked_functions, plan, plan_here
from penstock.spec.served import Workload

__all__ = ["EXECUTORS", "LocalTarget", "RayTarget", "Target", "open_target"]

EXECUTORS = ("local", "ray")


class Target(Protocol):
    def plan(self, workload: Workload, cut: Sequence[int] = ()) -> RunPlan:
        """Raises as `run_plan.plan`."""
        ...

    def executor(self, planned: RunPlan) -> Executor:
        """Call it before threads start: functions travel by fork."""
        ...

    def close(self) -> None: ...


def open_target(
    executor: str, workload: Workload, holder: str, *, ray_address: str | None = None, placement_group: Any = None
) -> Target:
    """holder: who takes the devices, for the messages of others. Raises UsageError for an executor that is none."""
    if executor == "local":
        return LocalTarget(holder)
    if executor == "ray":
        return RayTarget(workload, ray_address, placement_group)
    raise UsageError(f"unknown executor '{executor}'; use one of {', '.join(EXECUTORS)}")


class LocalTarget:
    """This machine."""

    def __init__(self, holder: str) -> None:
        self._leases, self._holder = DeviceLeases(), holder

    def plan(self, workload: Workload, cut: Sequence[int] = ()) -> RunPlan:
        return plan_here(workload, self._leases, self._holder, cut)

    def executor(self, planned: RunPlan) -> Executor:
        return LocalExecutor(_nursery(planned.forked, len(planned.pool_of_step)))

    def close(self) -> None:
        self._leases.release()


class RayTarget:
    """The nodes of a Ray cluster, or those of a placement group in it. Raises MissingDependency, ConfigError."""

    def __init__(self, workload: Workload, address: str | None = None, placement_group: Any = None) -> None:
        from penstock.executors.ray_cluster import connect

        # Ray starts threads, and functions travel by fork: first these.
        self._nursery = _nursery(forked_functions(workload), len(workload.steps))
        try:
            self._ray, self._ours = connect(address)
        except BaseException:
            self._close_nursery()
            raise
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

        nursery, self._nursery = self._nursery, None  # it is the executor's to close
        return RayExecutor(nursery, ray=self._ray, placement_group=self._group)

    def close(self) -> None:
        self._close_nursery()
        if self._ours:
            self._ours = False
            self._ray.shutdown()

    def _close_nursery(self) -> None:
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None


def _nursery(forked: dict[int, Any], steps: int) -> Nursery | None:
    if not forked:
        return None
    return Nursery([forked.get(index) for index in range(max(steps, max(forked) + 1))])
