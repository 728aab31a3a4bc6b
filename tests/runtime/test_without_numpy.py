"""The base install has no numpy: a run reads, generates and writes each format without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

SCRIPT = """
import sys
sys.modules["numpy"] = None  # an import of it fails
import penstock as ps

def done(rows):
    result = rows.run(display="none")
    assert result.exit_code == 0 and result.summary["rows"]["out"] == 2, result.summary

model = ps.Model("mock:m")
rows = ps.read([{"q": "one", "v": [1.0, 2.0]}, {"q": "two", "v": None}]).generate(model, prompt="{{ q }}", output="a")
for format in ("parquet", "arrow", "jsonl"):
    done(rows.filter("q != 'three'").write(format, format=format))
    done(ps.read(f"{format}/data").generate(model, prompt="{{ q }}", output="b").write(f"again-{format}"))
"""


def test_a_run_needs_no_numpy(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
