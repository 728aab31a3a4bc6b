"""Nothing that a test of whole runs started outlives it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import run_support


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    yield
    while run_support.STARTED:
        process = run_support.STARTED.pop()
        if process.poll() is None:
            process.kill()
        process.wait()
