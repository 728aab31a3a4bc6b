"""The state of a run directory for readers outside the run: read-only, without claiming the run, at any time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from penstock.core.counts import Counts
from penstock.errors import RunMismatch, UsageError
from penstock.ledger.files import Files
from penstock.ledger.layout import Layout
from penstock.ledger.manifest import Manifest
from penstock.ledger.opening import refuse_lost_manifest
from penstock.ledger.owner import OwnerRecord, is_alive, read_owner
from penstock.ledger.run_file import RunFile, read_run_file

__all__ = ["RunView", "known_input", "read_retry", "read_run"]


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """committed: wall clock of the newest commit, seconds; owner_alive: whether a coordinator may be at work."""

    out_dir: str
    run: RunFile
    seq: int
    epoch: int
    watermark: int
    phase: int
    counts: Counts
    total_rows: int | None
    finished: bool
    committed: float
    part_rows: int
    live_segments: int
    retries: int
    owner: OwnerRecord | None
    owner_alive: bool


def read_retry(view: RunView) -> RunView | None:
    """The run over dead rows that has been begun in `view`, and has not been put into its place yet."""
    try:
        return read_run(Layout(Path(view.out_dir)).retry(view.retries + 1))
    except RunMismatch:
        return None


def known_input(out_dir: Path) -> dict[str, Any] | None:
    """The identity of the input of the run in `out_dir`, as its first start wrote it; None where there is no run."""
    run = read_run_file(Layout(Path(out_dir)), Files())
    return None if run is None else run.input


def read_run(out_dir: Path) -> RunView:
    """The newest committed state of the run in `out_dir`. Raises RunMismatch where there is none, LedgerDamaged;
    UsageError where it can't be read."""
    layout, files = Layout(Path(out_dir)), Files()
    run = read_run_file(layout, files)
    if run is None:
        raise RunMismatch(
            "this folder has no Penstock run (run.json is missing); pass the output folder of a run.",
            where=str(out_dir),
        )
    try:
        newest = Manifest(layout, files).newest()
        if newest is None:
            refuse_lost_manifest(layout, files)
    except OSError as error:
        raise UsageError(
            f"can't read the record of this run: {error.strerror or error}.", where=str(error.filename or out_dir)
        ) from error
    owner = read_owner(files, layout.owner)
    return RunView(
        out_dir=str(out_dir),
        run=run,
        seq=newest.seq if newest else 0,
        epoch=newest.epoch if newest else 0,
        watermark=newest.watermark if newest else 0,
        phase=newest.phase if newest else 0,
        counts=newest.counts if newest else Counts(),
        total_rows=newest.total_rows if newest else None,
        finished=newest.finished if newest else False,
        committed=newest.written if newest else run.created,
        part_rows=newest.part_rows_total if newest else 0,
        live_segments=len(newest.segments) if newest else 0,
        retries=newest.retries if newest else 0,
        owner=owner,
        owner_alive=owner is not None and is_alive(owner, time.time()),
    )
