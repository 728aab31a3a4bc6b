"""The quick form of bench/gpu/check_engines.py, where there is a GPU."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: torch sees none"),
]

SCRIPT = Path(__file__).parents[2] / "bench" / "gpu" / "check_engines.py"
REQUIRED = [
    "transformers-float32-batched",
    "transformers-bfloat16-alone",
    "vllm-bfloat16-alone",
]


@pytest.mark.parametrize("check", REQUIRED)
def test_the_engine_equals_its_library_on_a_gpu(check: str, tmp_path: Path) -> None:
    library = check.split("-")[0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"NO {library.upper()}: it is not installed in this environment")
    out = tmp_path / "results.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--check", check, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert [result["ok"] for result in json.loads(out.read_text())["results"]] == [True]
