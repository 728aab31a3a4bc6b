"""Small files that unfold to large ones: refused, or passed over line by line, without the memory that they ask for."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def run_measured(tmp_path: Path, name: str, limit: int) -> subprocess.CompletedProcess[str]:
    """A run over the first rows; the last line that it prints is the peak of its largest process, in KiB."""
    written = {
        "models": {"writer": {"ref": "mock:test"}},
        "source": {"path": name},
        "steps": [{"generate": {"model": "writer", "prompt": "{{ q | length }}", "output": "a", "max_tokens": 1}}],
        "sink": {"path": "out", "format": "jsonl"},
        "max_dead": 1_000_000,
    }
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(written))
    command = [sys.executable, "-m", "penstock.cli", "run", "pipeline.yaml", "--display", "none", "--limit", str(limit)]
    return subprocess.run(
        [sys.executable, "-c", MEASURE, *command],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )


def slow(*values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize("make", [slow(one_long_line), nothing_but_brackets, slow(a_string_repeated)])
def test_a_bomb_takes_no_memory(tmp_path: Path, make: Callable[[Path], str]) -> None:
    name = make(tmp_path)
    assert (tmp_path / name).stat().st_size < 16 << 20
    done = run_measured(tmp_path, name, 3)
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr, done.stderr
    peak_bytes = int(done.stdout.splitlines()[-1]) * 1024
    assert peak_bytes < ALLOWED_BYTES, f"{peak_bytes >> 20} MiB; {done.stderr}"


LARGE_BYTES = 900 << 20  # a window of 256 MiB, what is read, committed and written of it; not more with more rows


def texts_of_30_mib(folder: Path) -> tuple[str, int]:
    """90 rows, each under the limit of a line: their sample alone held all of them."""
    with gzip.open(folder / "rows.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(90):
            file.write(b'{"q": "' + b"x" * (30 << 20) + b'"}\n')
    return "rows.jsonl.gz", 4


def a_mebibyte_by_its_index(folder: Path) -> tuple[str, int]:
    index = pa.array([row % 3 for row in range(3000)], pa.int32())
    texts = pa.array([letter * (1 << 20) for letter in "xyz"])
    pq.write_table(pa.table({"q": pa.DictionaryArray.from_arrays(index, texts)}), folder / "rows.parquet")
    return "rows.parquet", 400


def a_mebibyte_by_its_index_in_arrow(folder: Path) -> tuple[str, int]:
    index = pa.array([row % 3 for row in range(4000)], pa.int32())
    texts = pa.array([letter * (1 << 20) for letter in "xyz"])
    table = pa.table({"q": pa.DictionaryArray.from_arrays(index, texts)})
    with pa.ipc.new_file(str(folder / "rows.arrow"), table.schema) as writer:
        writer.write_table(table)
    return "rows.arrow", 400


def ids_as_keys(folder: Path) -> tuple[str, int]:
    rows = [{"q": "a", "of": {f"user_{20 * row + key}": 1 for key in range(20)}} for row in range(5000)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "rows.jsonl", 10


def a_million_columns(folder: Path) -> tuple[str, int]:
    row = json.dumps({f"column_{index}": 1 for index in range(1_000_000)})
    (folder / "rows.jsonl").write_text(row + "\n" + row + "\n")
    return "rows.jsonl", 2


@pytest.mark.parametrize(
    ("make", "code"),
    [
        slow(texts_of_30_mib, 0),
        (a_mebibyte_by_its_index, 0),
        slow(a_mebibyte_by_its_index_in_arrow, 0),
        (ids_as_keys, 2),
        slow(a_million_columns, 2),
    ],
)
def test_many_large_rows_take_bounded_memory(
    tmp_path: Path, make: Callable[[Path], tuple[str, int]], code: int
) -> None:
    name, limit = make(tmp_path)
    done = run_measured(tmp_path, name, limit)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    peak_bytes = int(done.stdout.splitlines()[-1]) * 1024
    assert peak_bytes < LARGE_BYTES, f"{peak_bytes >> 20} MiB; {done.stderr}"
