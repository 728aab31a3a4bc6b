"""`penstock retry` as a process, and what a run has put out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pyarrow.dataset as ds
from run_support import catch, end_of, start

from command_server import Command
from penstock.ledger.entry import hash_bytes
from penstock.ledger.view import read_run


def begin_retry(
    folder: Path, *arguments: str, log: str = "stderr.txt", env: Mapping[str, str] | None = None
) -> Command:
    """env: beside the variables of this process."""
    with mock.patch.dict(os.environ, env or {}):
        return start(folder, *arguments, command="retry", target="out", log=log)


def catch_retry(
    folder: Path, *arguments: str, model: str = "a", ms_per_row: int = 400, commits: int = 1, log: str = "stderr.txt"
) -> Command:
    """A retry that is held (SIGSTOP) when it has committed more than so often, and has not ended."""
    before, inner = folder / "before", folder / "out" / ".penstock" / "retry-0001"
    shutil.copytree(folder / "out", before)

    def begin(slower: int) -> Command:
        slow = f"models.{model}.engine_options.ms_per_row={ms_per_row * slower}"
        return begin_retry(folder, *arguments, "--set", slow, log=log)

    def there() -> bool:
        begun = len(list((inner / ".penstock" / "manifest").glob("*"))) > commits
        return begun and not read_run(inner).finished

    def undo() -> None:
        shutil.rmtree(folder / "out")
        shutil.copytree(before, folder / "out")

    process = catch(folder, begin, there, "commits of the retry", undo)
    shutil.rmtree(before)
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
