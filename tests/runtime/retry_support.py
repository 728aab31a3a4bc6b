"""`penstock retry` as a process, and what a run has put out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.dataset as ds
from run_support import STARTED, end_of

from penstock.ledger.entry import hash_bytes


def begin_retry(
    folder: Path, *arguments: str, log: str = "stderr.txt", env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """env: beside the variables of this process."""
    command = [sys.executable, "-m", "penstock.cli", "retry", "out", "--display", "jsonl", *arguments]
    with (folder / log).open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            text=True,
        )
    STARTED.append(process)
    return process


def retry(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> int:
    return end_of(begin_retry(folder, *arguments, env=env), folder)


def well(text: str = "nothing") -> tuple[str, str]:
    """The engines refuse only this from now on."""
    return "--set", f"models.a.engine_options.fail_on={text}"


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for file in sorted((folder / "out" / "data").iterdir()):
        if file.suffix == ".jsonl":
            found += [json.loads(line) for line in file.read_text().splitlines()]
        else:
            found += ds.dataset(file, format=file.suffix[1:]).to_table().to_pylist()
    return found


def make_older(out: Path) -> None:
    """Make a finished run one of the Penstock that wrote format 2, whose parts of dead/ had no keys."""
    before = ""
    for path in sorted((out / ".penstock" / "manifest").iterdir()):
        entry = msgspec.json.decode(path.read_bytes())["entry"]
        for part in (*entry["dead_parts"], *entry["dead_tail"]):
            part["keys"] = ""
        body = msgspec.json.encode(entry | {"previous": before})
        before = hash_bytes(body)
        path.write_bytes(b'{"format":2,"hash":"%s","entry":%s}\n' % (before.encode(), body))
    for path in (out / ".penstock" / "keys").glob("*-dead-*"):
        path.unlink()
