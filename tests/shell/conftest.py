"""Nothing that a test of whole runs started outlives it; and commands of a user without privileges."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_support
from bad_input_support import Here


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    yield
    while run_support.STARTED:
        process = run_support.STARTED.pop()
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(tmp_path, monkeypatch, capsys)


@pytest.fixture
def without_privileges() -> dict[str, Any]:
    """How to start a process to which permissions mean something: root may do everything."""
    if os.geteuid():
        return {}
    if shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and there is no setpriv to give that up")
    return {"prefix": ("setpriv", "--bounding-set=-dac_override,-dac_read_search")}
