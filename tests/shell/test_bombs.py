"""Small files that unfold to large ones: refused, or passed over line by line, without the memory that they ask for."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

pytestmark = pytest.mark.process

UNFOLDED = 1 << 30
ALLOWED_BYTES = 400 << 20  # more than a run takes that reads nothing of the kind; a third of what the bombs unfold to

# From a process of its own: a child's peak counts from that of the process that it was forked from.
MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def one_long_line(folder: Path) -> str:
    with gzip.open(folder / "rows.jsonl.gz", "wb", compresslevel=9) as file:
        file.write(b'{"q": "')
        for _ in range(UNFOLDED >> 20):
            file.write(bytes(1 << 20))
        file.write(b'"}\n{"q": "fine"}\n')
    return "rows.jsonl.gz"


def nothing_but_brackets(folder: Path) -> str:
    (folder / "rows.jsonl").write_bytes(b'{"q": ' + b"[" * (8 << 20) + b"\n" + b'{"q": "fine"}\n')
    return "rows.jsonl"


def a_string_repeated(folder: Path) -> str:
    """A dictionary of one long string, and an index that names it a million times."""
    index = pa.array([0] * 1_000_000, pa.int32())
    column = pa.DictionaryArray.from_arrays(index, pa.array(["x" * 100_000]))
    pq.write_table(pa.table({"q": column}), folder / "rows.parquet", row_group_size=1_000_000)
    return "rows.parquet"


@pytest.mark.parametrize("make", [one_long_line, nothing_but_brackets, a_string_repeated])
def test_a_bomb_takes_no_memory(tmp_path: Path, make: Callable[[Path], str]) -> None:
    name = make(tmp_path)
    assert (tmp_path / name).stat().st_size < 16 << 20
    written = {
        "models": {"writer": {"ref": "mock:test"}},
        "source": {"path": name},
        "steps": [{"generate": {"model": "writer", "prompt": "{{ q | length }}", "output": "a", "max_tokens": 1}}],
        "sink": {"path": "out", "format": "jsonl"},
        "max_dead": 1_000_000,
    }
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(written))
    command = [sys.executable, "-m", "penstock.cli", "run", "pipeline.yaml", "--display", "none", "--limit", "3"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr, done.stderr
    peak_bytes = int(done.stdout.splitlines()[-1]) * 1024
    assert peak_bytes < ALLOWED_BYTES, f"{peak_bytes >> 20} MiB; {done.stderr}"
