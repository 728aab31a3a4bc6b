"""Nothing that a test of whole runs started outlives it; and commands of a user without privileges."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_support
from bad_input_support import Here
from canary_support import KEY, TALLY, Teller


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if TALLY["tests"]:
        terminalreporter.write_line("canaries looked for: " + ", ".join(f"{n:,} {what}" for what, n in TALLY.items()))


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
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Teller:
    """Commands in the test's folder, with the key in the environment, and temporary files where they are looked at."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Teller(tmp_path, capfd)


@pytest.fixture
def without_privileges() -> dict[str, Any]:
    """How to start a process to which permissions mean something: root may do everything."""
    if os.geteuid():
        return {}
    if shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and there is no setpriv to give that up")
    return {"prefix": ("setpriv", "--bounding-set=-dac_override,-dac_read_search")}
