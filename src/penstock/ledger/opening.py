"""Opening a run: complete what a crash interrupted, claim it with an epoch entry, delete unused files.

newest entry -> finish its moves -> append epoch entry --lost to an older epoch--> read again
                                        |     `--lost to an equal or newer one--> RunOwned
                                    we own the run -> owner record -> sweep
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from penstock.errors import LedgerDamaged, RunOwned
from penstock.faults import fault
from penstock.ledger.entry import Entry, PartFact
from penstock.ledger.files import Files
from penstock.ledger.layout import Layout, epoch_of
from penstock.ledger.manifest import LostRace, Manifest
from penstock.ledger.owner import Owner, this_process

__all__ = ["BEGINNING", "claim", "finish_moves", "refuse_lost_manifest", "successor", "sweep"]

# What stands before the first entry of a run.
BEGINNING = Entry(seq=0, epoch=0, kind="none", owner="", previous="", written=0.0)


def successor(before: Entry, previous: str, **changes: Any) -> Entry:
    """The entry after `before`: its state with `changes`; what belonged to that entry alone is empty again."""
    alone: dict[str, Any] = {"parts": (), "dead_parts": (), "drops": ()}
    fields = {**alone, "seq": before.seq + 1, "previous": previous, "written": time.time(), **changes}
    return msgspec.structs.replace(before, **fields)


def claim(layout: Layout, files: Files, manifest: Manifest, newest: Entry) -> tuple[Entry, Owner]:
    """Own the run: our epoch entry is the newest, and no older coordinator can commit any more.

    Raises RunOwned where another start of the run was quicker, OSError, CommitError, LedgerDamaged.
    """
    if manifest.successor_of(newest) is not None:  # a part that it names may have gone since
        newest = manifest.newest() or newest
    epoch = newest.epoch + 1
    owner = Owner(this_process(epoch), layout.owner, files)
    while True:
        finish_moves(layout, files, newest)
        fault("open.moves_finished")
        entry = successor(newest, manifest.hash_of(newest.seq), kind="epoch", epoch=epoch, owner=owner.token)
        try:
            manifest.append(entry)
            break
        except LostRace as lost:
            if lost.entry.epoch >= epoch:
                raise RunOwned(
                    "another process has just started on this run. Wait for it, stop it, or use --takeover.",
                    where=str(layout.out_dir),
                ) from None
            newest = manifest.newest() or lost.entry
    fault("open.claimed")
    owner.claim()
    fault("open.owner_written")
    sweep(layout, files, entry)
    fault("open.swept")
    return entry, owner


def finish_moves(layout: Layout, files: Files, entry: Entry) -> None:
    """Bring the parts of a committed entry to where they are seen, and remove what it dropped. Idempotent.

    Raises LedgerDamaged where a part is in neither place.
    """
    left = list(entry.drops)
    for folder, parts in ((layout.data, entry.parts), (layout.dead, entry.dead_parts)):
        # What a joined part holds goes before it comes, the last first: nobody ever sees a row twice, or a gap.
        first = min((f"{folder.name}/{part.name}" for part in parts), default="")
        joined = [name for name in left if first and name.startswith(f"{folder.name}/") and name > first]
        for name in sorted(joined, reverse=True):
            _drop(layout, files, name)
            left.remove(name)
        if joined:
            files.sync_folder(folder)  # else a disk that loses its power might keep both
        for part in sorted(parts, key=lambda part: part.name):
            _move(layout, files, part, folder)
        if parts:
            files.sync_folder(folder)
            fault("move.synced")
    for name in left:
        _drop(layout, files, name)
    for folder in (layout.data, layout.dead):
        if any(name.startswith(f"{folder.name}/") for name in left):
            files.sync_folder(folder)  # else a part that is gone may be there again, once a later entry is the newest


def sweep(layout: Layout, files: Files, entry: Entry) -> None:
    """Remove files of commits that never were, of epochs up to that of the newest `entry`.

    Those of its own epoch are garbage too: its coordinator is us between commits, or ended with a finished run. A
    newer epoch may just have begun, and is left alone.
    """
    live = {segment.name for segment in (*entry.segments, *entry.partial, *entry.inputs, *entry.carried)}
    for folder in (layout.staging, layout.segments):
        for name in files.names(folder):
            if name not in live and epoch_of(name) <= entry.epoch:
                try:
                    files.unlink(folder / name)
                except OSError:
                    continue  # garbage harms nobody


def refuse_lost_manifest(layout: Layout, files: Files) -> None:
    """A run without entries has no results. If there are some, its manifest is gone, and a new one would spoil them."""
    for folder in (layout.data, layout.dead, layout.segments):
        if files.names(folder):
            raise LedgerDamaged(
                "this folder has results of a run, but the run has no manifest. Restore .penstock/manifest from a "
                "copy, or choose another output folder.",
                where=str(folder),
            )


def _drop(layout: Layout, files: Files, name: str) -> None:
    files.unlink(layout.out_dir / name)
    fault("commit.file_dropped")


def _move(layout: Layout, files: Files, part: PartFact, folder: Path) -> None:
    """Another coordinator may be doing the same at this moment."""
    target = folder / part.name
    try:
        files.rename(layout.staged(part.staged), target)
    except FileNotFoundError as error:
        if not files.exists(target):
            raise LedgerDamaged("this committed part is missing. Restore it from a copy.", where=str(target)) from error
    fault("move.renamed")
