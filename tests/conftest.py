"""What every test shares: how hypothesis behaves here, and fixtures that write inputs and run Penstock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples each time, and no limit in time: a loaded machine must not fail a test. `make test-slow` tries four
# times as many (see example_counts.py).
settings.register_profile("penstock", derandomize=True, deadline=None, print_blob=True, max_examples=25)
settings.register_profile("thorough", settings.get_profile("penstock"), max_examples=100)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "penstock"))

# A shell starts what is to run in the background with SIGINT ignored, and so would start whatever is started here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

RunPenstock = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """An interpreter with vLLM, from PENSTOCK_VLLM_PYTHON (`make test` sets it)."""
    python = os.environ.get("PENSTOCK_VLLM_PYTHON")
    if not python:
        pytest.skip("NO VLLM: PENSTOCK_VLLM_PYTHON is not set; `make vllm-env` makes such an environment")
    return python


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[[str, Iterable[dict[str, Any]]], Path]:
    """write_jsonl(name, rows) -> the path of a JSON Lines file in the test's folder."""

    def write(name: str, rows: Iterable[dict[str, Any]]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def run_penstock(tmp_path: Path) -> RunPenstock:
    """run_penstock("run", "p.yaml", ...) -> the finished command, started in the test's folder without a terminal."""

    def run(*arguments: str, timeout_s: float = 240.0, **options: Any) -> subprocess.CompletedProcess[str]:
        options.setdefault("cwd", tmp_path)
        command = [sys.executable, "-m", "penstock.cli", *arguments]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, **options
        )

    return run
