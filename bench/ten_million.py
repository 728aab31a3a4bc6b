"""Ten million rows through a free mock: memory, how soon a resume is at work, and a finished run again.

The run is stopped by a limit shortly before its end; the same command without it takes it up. Plain JSONL and Parquet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common import Figure, main, run_pipeline, say, work_folder, write_jsonl
from free_mock import pipeline

LEFT, FEW, ROW_GROUP = 20_000, 100_000, 100_000


def write_parquet(path: Path, rows: int) -> Path:
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for begin in range(0, rows, ROW_GROUP):
            ids = range(begin, min(begin + ROW_GROUP, rows))
            writer.write_table(pa.table({"id": list(ids), "text": [f"row {n}" for n in ids]}, schema=schema))
    return path


def measure(arguments: argparse.Namespace) -> list[Figure]:
    figures, rows, name = [], arguments.rows, "ten million"
    with work_folder() as folder:
        few = write_jsonl(folder / "few.jsonl", ({"id": n, "text": f"row {n}"} for n in range(FEW)))
        least = run_pipeline(folder, pipeline(few), "few").peak_bytes
    for kind in ("jsonl", "parquet"):
        with work_folder() as folder:
            if kind == "jsonl":
                source = write_jsonl(folder / "rows.jsonl", ({"id": n, "text": f"row {n}"} for n in range(rows)))
            else:
                source = write_parquet(folder / "rows.parquet", rows)
            made = pipeline(source)
            long = run_pipeline(folder, made, options=["--limit", str(rows - LEFT)])
            say(f"{kind}: {rows - LEFT:,} rows in {long.wall_s:.0f} s, {long.peak_bytes / 1e6:.0f} MB")
            rest = run_pipeline(folder, made)
            again = run_pipeline(folder, made)
        if again.summary["rows"]["out"] != rows:
            raise SystemExit(f"rows are missing: {again.summary['rows']}")
        ratio, start_s = long.peak_bytes / least, rest.summary["first_request_s"]
        loads = sum(pool["loads"] for pool in again.summary["models"].values())
        figures += [
            Figure(name, f"{kind}: coordinator peak / of 100,000 rows", f"{ratio:.3f}", "<= 1.10", ratio <= 1.10),
            Figure(name, f"{kind}: resume, start to first request", f"{start_s:.2f} s", "< 5 s", start_s < 5),
            Figure(name, f"{kind}: finished run again, loads", str(loads), "0", loads == 0),
            Figure(name, f"{kind}: finished run again, wall", f"{again.wall_s:.2f} s"),
        ]
    return figures


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], rows=10_000_000)
