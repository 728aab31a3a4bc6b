from __future__ import annotations

import pytest

from penstock.executors.base import Executor
from penstock.executors.local import LocalExecutor
from penstock.testing.executors import ExecutorConformance

pytestmark = pytest.mark.process


class TestLocal(ExecutorConformance):
    def make(self) -> Executor:
        return LocalExecutor()
