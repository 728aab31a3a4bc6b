"""The Ray executor does what every executor does."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.executors.base import Executor
from penstock.executors.ray import RayExecutor
from penstock.testing.executors import ExecutorConformance

pytestmark = pytest.mark.ray


class TestRayExecutor(ExecutorConformance):
    cycles = 3

    @pytest.fixture(autouse=True)
    def _ray(self, ray: Any) -> None:
        self.ray = ray

    def make(self) -> Executor:
        return RayExecutor(ray=self.ray)
