"""A run whose functions answer with arrays: to the next function, in templates, between phases, and of a dead row."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from run_support import run, summary

pytest.importorskip("numpy")
pytestmark = pytest.mark.process

FUNCTIONS = """
import numpy

def vector(row):
    return {"vector": numpy.arange(4, dtype="float32") + row["id"]}

def check(row):
    vector = row["vector"]
    if row["id"] == 5:
        raise ValueError("boom")
    return {"kind": f"{type(vector).__name__} {vector.dtype}", "half": (vector / 2).astype("float16")}
"""


@pytest.mark.parametrize("phased", [False, True])
def test_arrays_stay_arrays_up_to_the_table(tmp_path: Path, phased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "own_vectors.py").write_text(FUNCTIONS)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"id": number}) + "\n" for number in range(20)))
    generate = {"prompt": "{{ id }}", "max_tokens": 2}
    pipeline: dict[str, Any] = {
        "models": {name: {"ref": f"mock:{name}", "replicas": 1} for name in ("one", "two")},
        "source": {"path": "rows.jsonl"},
        "steps": [
            {"generate": {"name": "first", "model": "one", "output": "a", **generate}},
            {"map": {"name": "vector", "function": "own_vectors:vector"}},
            {
                "generate": {
                    "name": "second",
                    "model": "two",
                    "output": "b",
                    "prompt": "{{ vector[1] }}",
                    "max_tokens": 2,
                }
            },
            {"map": {"name": "check", "function": "own_vectors:check"}},
        ],
        "sink": {"path": "out", "format": "parquet"},
        "resources": {"load_strategy": "phases" if phased else "auto"},
        "max_dead": 1,
    }
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    assert run(tmp_path) == 0, (tmp_path / "stderr.txt").read_text()[-3000:]
    assert summary(tmp_path)["rows"]["out"] == 19
    (part,) = (tmp_path / "out" / "data").iterdir()
    table = pq.read_table(part)
    assert str(table.schema.field("vector").type).replace("element", "item") == "list<item: float>"
    assert str(table.schema.field("half").type).replace("element", "item") == "list<item: halffloat>"
    for row in table.to_pylist():
        assert row["vector"] == [row["id"] + at for at in range(4)]
        assert row["half"] == [value / 2 for value in row["vector"]]
        assert row["kind"] == "ndarray float32"
    (dead,) = pq.read_table(tmp_path / "out" / "dead").to_pylist()
    kept = json.loads(dead["input"])
    assert (kept["vector"]["dtype"], kept["vector"]["shape"]) == ("float32", [4])
    assert struct.unpack("<4f", base64.b64decode(kept["vector"]["base64"])) == (5.0, 6.0, 7.0, 8.0)
