"""The one place through which the ledger touches the file system.

A simulated file system takes the place of `Files` in tests: it has the same methods, and may lose whatever was not
synced. So the rules of durability are visible in the calls: bytes are durable when `create`, `write` or `produce`
return; names are durable after `sync_folder` of the folder that holds them.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from penstock.errors import CommitError

__all__ = ["FULL_DISK_ERRNOS", "Files", "FsyncFailed", "commit_error"]

# No room: nothing is broken, and the same write succeeds once there is room again.
FULL_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


class FsyncFailed(OSError):
    """An fsync failed. The kernel has marked the pages clean, so that a second fsync would succeed and mean nothing."""


class Files:
    """The real file system. Every method raises OSError, `FsyncFailed` where it was the fsync."""

    def make_folder(self, path: Path) -> None:
        """Make `path` and what is missing above it, durably. An existing folder is fine."""
        if path.is_dir():
            return
        if path.parent != path:
            self.make_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
        self.sync_folder(path.parent)

    @contextlib.contextmanager
    def create(self, path: Path) -> Iterator[BinaryIO]:
        """Write a new file at `path` (what stood there is lost); its bytes are durable when the block ends."""
        with open(path, "wb") as file:
            yield file
            file.flush()
            _fsync(file.fileno(), path)

    def write(self, path: Path, data: bytes) -> None:
        with self.create(path) as file:
            file.write(data)

    def produce(self, path: Path, write: Callable[[Path], int]) -> int:
        """Let `write(path)` make the file and fsync it (as PartWriter does); returns what it returns."""
        return write(path)

    def replace(self, path: Path, data: bytes) -> None:
        """Put `data` at `path` in one step, but not durably: for records that only advise."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(data)
        temporary.rename(path)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def open(self, path: Path) -> BinaryIO:
        return open(path, "rb")

    def link(self, source: Path, target: Path) -> None:
        """Give `source` the second name `target`; FileExistsError where there is one."""
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        """Remove `path`; that it is gone already is fine."""
        path.unlink(missing_ok=True)

    def exists(self, path: Path) -> bool:
        return path.exists()

    def names(self, folder: Path) -> list[str]:
        """Names in `folder`, sorted; none where there is no such folder. Only ever used to find garbage."""
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []

    def sync_folder(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise FsyncFailed(error.errno, error.strerror, str(path)) from error
        finally:
            os.close(descriptor)


def _fsync(descriptor: int, path: Path) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in FULL_DISK_ERRNOS:
            raise  # the file is discarded and rewritten, never synced again
        raise FsyncFailed(error.errno, error.strerror, str(path)) from error


def commit_error(error: OSError, doing: str, folder: Path | None = None) -> CommitError:
    """What the caller of a commit gets for `error`; `doing` says what failed, as in "write a part".

    folder: where it was, for errors that name no file (a write to one that is open).
    """
    full = error.errno in FULL_DISK_ERRNOS and not isinstance(error, FsyncFailed)
    place = folder if error.filename is None else error.filename
    where = None if place is None else str(place)
    reason = error.strerror or str(error)
    if full:
        fix = "No data is lost. Free some space, then run the same command to continue."
    elif isinstance(error, FsyncFailed):
        fix = (
            "The disk did not persist written data. Check it, then run the same command to continue from the "
            "last commit."
        )
    else:
        fix = "Fix this, then run the same command to continue from the last commit."
    return CommitError(f"could not {doing}: {reason}. {fix}", where=where, errno=error.errno, fatal=not full)
