"""run.json at the top of a run directory: what the run is of, written once before anything else counts.

It is what a resume is compared with: the pipeline's identity, the input's, the order and the format of the output.
"""

from __future__ import annotations

import errno
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from penstock import __version__
from penstock.errors import ConfigError, LedgerDamaged, RunMismatch, UsageError
from penstock.faults import fault
from penstock.ledger.files import FULL_DISK_ERRNOS, Files, FsyncFailed, commit_error
from penstock.ledger.layout import Layout

__all__ = ["Diff", "RunFile", "prepare", "read_run_file"]

FORMAT = 1
# What link() gives on a file system that has no second names for a file (some network and removable ones).
_NO_LINKS_ERRNOS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS})
Diff = Callable[[dict[str, Any], dict[str, Any]], list[str]]


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    """`created`: wall clock, seconds. `identity` and `input` are plain JSON, made and compared by their owners.

    cut: the steps at which the phases end, as settled by the first start; () and one entry: a single phase
    """

    format: int = FORMAT
    penstock: str
    created: float
    order: str
    sink_format: str
    identity: dict[str, Any]
    input: dict[str, Any]
    cut: tuple[int, ...] = ()

    @property
    def phases(self) -> int:
        return max(1, len(self.cut))


def run_file(
    identity: dict[str, Any], input_identity: dict[str, Any], sink_format: str, order: str, cut: Sequence[int] = ()
) -> RunFile:
    described = RunFile(
        penstock=__version__,
        created=time.time(),
        order=order,
        sink_format=sink_format,
        identity=identity,
        input=input_identity,
        cut=tuple(cut),
    )
    try:
        text = msgspec.json.encode(described)
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"a text of the pipeline, or the name of an input, is not valid Unicode: it has a lone surrogate, which "
            f"can't be written ({error.object[:60]!r}); write characters such as \\ud83d\\ude00 in pairs"
        ) from None
    return msgspec.json.decode(text, type=RunFile)  # as it will be read: tuples are lists


def read_run_file(layout: Layout, files: Files) -> RunFile | None:
    """None where there is none. Raises RunMismatch where the file is not ours, UsageError where it can't be read."""
    try:
        data = files.read(layout.run_file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(
            f"can't read the output folder: {error.strerror or error}. Choose another with --out.",
            where=str(layout.out_dir),
        ) from error
    try:
        found = msgspec.json.decode(data, type=RunFile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RunMismatch(
            f"this run.json was not written by Penstock, or is damaged ({error}). Choose another output folder.",
            where=str(layout.run_file),
        ) from error
    if found.format != FORMAT:
        raise RunMismatch(
            f"this run has format {found.format}, and this Penstock ({_name(found)}) knows format {FORMAT}.",
            where=str(layout.run_file),
        )
    return found


def prepare(layout: Layout, files: Files, wanted: RunFile, diff: Diff) -> RunFile:
    """Make `layout` the directory of the run `wanted`, or see that it is; returns what stands there. Writes nothing
    into anybody else's folder.

    Raises RunMismatch, LedgerDamaged; UsageError where the folder can't be made; CommitError where the disk is full.
    """
    found = read_run_file(layout, files)
    if found is None:
        try:
            _refuse_foreign(layout, files)
            found = _create(layout, files, wanted)
        except OSError as error:
            if error.errno in FULL_DISK_ERRNOS or isinstance(error, FsyncFailed):
                raise commit_error(error, "make the output folder", layout.out_dir) from error
            reason = error.strerror or str(error)
            if error.errno in _NO_LINKS_ERRNOS:
                reason += " (a run needs a file system with hard links)"
            raise UsageError(
                f"can't make the output folder: {reason}. Choose another with --out.",
                where=str(error.filename or layout.out_dir),
            ) from error
    _compare(layout.out_dir, found, wanted, diff)
    if not files.exists(layout.private):
        raise LedgerDamaged(
            "run.json exists, but .penstock, the record of finished work, is missing. "
            "Restore it from a copy, or choose another output folder.",
            where=str(layout.out_dir),
        )
    return found


def _refuse_foreign(layout: Layout, files: Files) -> None:
    """A folder is ours to write to when it is absent, empty, or was begun by us and got no further than .penstock."""
    try:
        names = files.names(layout.out_dir)
    except NotADirectoryError:
        if not files.exists(layout.out_dir):
            raise  # it is not the last name of the path that is a file
        raise RunMismatch("the output path is a file; it must be a folder.", where=str(layout.out_dir)) from None
    if names and layout.private.name not in names:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise RunMismatch(
            f"the output folder contains files that are not a Penstock run ({shown}); it was not changed. "
            "Choose an empty or new folder.",
            where=str(layout.out_dir),
        )
    if files.exists(layout.entry(1)):
        raise LedgerDamaged("run.json is missing. Restore it from a copy.", where=str(layout.out_dir))


def _create(layout: Layout, files: Files, wanted: RunFile) -> RunFile:
    """Write run.json unless another did so first; returns the one that stands."""
    for folder in layout.folders():
        files.make_folder(folder)
    fault("open.folders_made")
    temporary = layout.private / f"run-{secrets.token_hex(8)}.json"  # not in staging/, which others may sweep
    files.write(temporary, msgspec.json.format(msgspec.json.encode(wanted), indent=1) + b"\n")
    try:
        files.link(temporary, layout.run_file)
    except FileExistsError:
        pass  # another start of the same command was quicker; its run.json is compared with ours
    files.sync_folder(layout.out_dir)
    files.unlink(temporary)
    fault("open.run_file_linked")
    return read_run_file(layout, files) or wanted


def _compare(out_dir: Path, found: RunFile, wanted: RunFile, diff: Diff) -> None:
    lines: list[str] = []
    if found.identity != wanted.identity:
        lines += diff(found.identity, wanted.identity) or ["the pipeline differs"]
    if found.input != wanted.input:
        lines += diff(found.input, wanted.input) or ["the input differs"]
    for name in ("order", "sink_format"):
        old, new = getattr(found, name), getattr(wanted, name)
        if old != new and not lines:
            lines.append(f"{name}: {old} -> {new}")
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        raise RunMismatch(
            f"the output folder contains another run, which differs from the requested one in:\n{listed}\n"
            "Undo the change to continue that run, or choose another output folder with --out of `penstock run`.",
            where=str(out_dir),
        )


def _name(found: RunFile) -> str:
    return f"run written by {found.penstock}"
