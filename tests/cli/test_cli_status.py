"""What `penstock status` says of a run in each of its states, from real run directories."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.cli.main import main
from penstock.cli.status import _causes
from penstock.core.counts import Counts
from penstock.data.columns import TableBuilder
from penstock.ledger import Ledger
from penstock.ledger.base import CommitBatch, DeadRow, Finished


def open_run(out: Path) -> Ledger:
    return Ledger.open(
        out,
        identity={"prompt": "a"},
        input_identity={"file": "x.jsonl"},
        table=lambda columns: TableBuilder() if columns is None else TableBuilder.from_fixed(columns),
        sink_format="parquet",
        order="input",
        diff=lambda old, new: [],
    )


def batch(*, final: bool) -> CommitBatch:
    dead = [
        DeadRow(7 + i, "x.jsonl", 7 + i, [], "generate", "too_long", f"{9000 + i} tokens", 1, "{}") for i in range(2)
    ]
    dead.append(DeadRow(9, "x.jsonl", 9, [], "", "bad_json", "line 10", 0, ""))
    return CommitBatch(
        finished=[Finished(position, (), {"n": position}) for position in range(7)],
        dead=dead,
        ended=list(range(10)),
        watermark=10,
        publish_to=10,
        counts=Counts(rows_in=12, out=7, dead=3, dead_sources=3, ended_sources=10, steps={"generate": (9, 7, 2)}),
        total_rows=10 if final else 20,
        final=final,
    )


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["status", *argv]) == 0
    return capsys.readouterr().out


def facts(capsys: pytest.CaptureFixture[str], out: Path) -> dict[str, Any]:
    return json.loads(told(capsys, str(out), "--json"))


def test_a_run_that_is_going_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    ledger = open_run(out)
    ledger.commit(batch(final=False))
    found = facts(capsys, out)
    assert found["status"] == "running"
    assert found["rows"] == {"in": 12, "ended": 10, "out": 7, "dead": 3, "filtered": 0}
    assert found["causes"] == {"generate too_long": 2, "bad_json": 1}
    assert found["owner"].endswith(f"process {os.getpid()}")
    assert set(found["examples"]) == set(found["causes"]) and found["replicas"] == []
    lines = [line.split(maxsplit=1) for line in told(capsys, str(out)).splitlines()]
    assert ["status", "running"] in lines
    assert ["rows", "10 of 20 ended (50.0%)"] in lines
    assert ["dead", f"2 x generate too_long: {found['examples']['generate too_long']}"] in lines
    ledger.close()


def test_a_run_that_was_killed_and_one_that_was_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    ledger = open_run(out)
    ledger.commit(batch(final=False))
    ledger.close()
    assert facts(capsys, out)["status"] == "interrupted"
    (out / "summary.json").write_text('{"status": "too_many_dead", "models": {}}')
    assert facts(capsys, out)["status"] == "too_many_dead"
    assert "with a higher `--set max_dead=...` to continue" in told(capsys, str(out))
    (out / "summary.json").write_text('{"status": "failed", "models": {"w": {"replicas": [{"busy_fraction": 0.5}]}}}')
    text = told(capsys, str(out))
    assert "run the same `penstock run` command to continue" in text and "50.0% over 1 replica, " in text
    os.utime(out / "summary.json", (1.0, 1.0))  # of an invocation before the one that was killed
    assert facts(capsys, out)["status"] == "interrupted"


def test_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    ledger = open_run(out)
    ledger.commit(batch(final=True))
    ledger.close()
    replicas = [{"busy_fraction": 0.98}, {"busy_fraction": 1.0}, {"busy_fraction": None}]
    (out / "summary.json").write_text(json.dumps({"status": "done", "models": {"writer": {"replicas": replicas}}}))
    text = told(capsys, str(out))
    assert "done" in text
    assert "writer: 99.0% over 2 replicas, last invocation" in text
    assert "to continue" not in text


def test_folders_that_are_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path / "nowhere")]) == 2
    assert "no such folder; pass the output folder of a run" in capsys.readouterr().err
    assert main(["status", str(tmp_path)]) == 2
    assert "has no Penstock run" in capsys.readouterr().err


def test_parts_that_vanish_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small parts are joined, and dead rows run again, at any moment."""
    schema = {"step": ["generate"], "code": ["refused"], "message": ["no"], "input": ["{}"]}
    pq.write_table(pa.table(schema), tmp_path / "part-00000.parquet")
    read, missing = pq.read_table, [True, True]

    def vanishing(*arguments: object, **options: object) -> pa.Table:
        if missing and missing.pop():
            raise FileNotFoundError(str(arguments[0]))
        return read(*arguments, **options)

    monkeypatch.setattr(pq, "read_table", vanishing)
    assert _causes(tmp_path) == ({"generate refused": 1}, {"generate refused": "no"})
