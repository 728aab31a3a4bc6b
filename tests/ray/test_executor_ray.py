"""The Ray executor does what every executor does."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from penstock.executors import ray_start
from penstock.executors.base import Executor
from penstock.executors.ray import RayExecutor
from penstock.testing.executors import ExecutorConformance, StartedReplica, gone, parent_of, wait_for_exits

pytestmark = pytest.mark.ray


class TestRayExecutor(ExecutorConformance):
    cycles = 3

    @pytest.fixture(autouse=True)
    def _ray(self, ray: Any) -> None:
        self.ray = ray

    def make(self) -> Executor:
        return RayExecutor(ray=self.ray)

    @pytest.mark.parametrize("above", [1, 3], ids=["guardian", "actor"])
    def test_a_host_killed_beneath_what_is_stopped(
        self, executor: Executor, start: Callable[..., StartedReplica], monkeypatch: pytest.MonkeyPatch, above: int
    ) -> None:
        """Its rows are not to wait for the word of a process that says nothing."""
        monkeypatch.setattr(ray_start, "KILL_LIMIT_S", 5.0)
        replica = start().make_ready()
        assert replica.hello is not None
        host = stopped = replica.hello.pid
        for _ in range(above):
            stopped = parent_of(stopped)
        os.kill(stopped, signal.SIGSTOP)
        os.kill(host, signal.SIGKILL)
        executor.kill("writer-0", 0)
        (end,) = wait_for_exits(executor, 1)
        assert end.status == -9
        assert gone(host)
