"""A file system whose power may fail: what was not synced is lost, kept or torn.

`PowerlossFiles` works in a real folder, which is what a process would see, and keeps beside it what a disk is bound to
have: the bytes that were fsynced, and the names that were when their folder was synced. At operation `fails_at` it
raises `PowerLoss`; `restore` then turns the folder into one that a machine may find when it is back.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import BinaryIO, Literal

from penstock.ledger.files import Files, FsyncFailed

__all__ = ["PowerLoss", "PowerlossFiles"]

FOLDER = -1  # in place of a file's number
Survivors = Literal["none", "all", "some"]


class PowerLoss(BaseException):
    """Nothing after it happens; no `except Exception` of the code under test takes it for an error of its own."""


class PowerlossFiles(Files):
    """fails_at: number of the operation that is the last one, begun and not ended; 0: none. operations: so far.

    full_at, broken_at: numbers of the operation that finds no space, and of that whose fsync fails.
    """

    def __init__(self, root: Path, *, fails_at: int = 0, full_at: int = 0, broken_at: int = 0) -> None:
        self.root = root
        self.operations = 0
        self._fails_at, self._full_at, self._broken_at = fails_at, full_at, broken_at
        self._bytes: dict[int, bytes] = {}  # file -> what was fsynced of it
        self._names: dict[Path, dict[str, int]] = {}  # folder -> the names that are durable
        self._now: dict[Path, int] = {}  # path -> file, as a process sees it
        self._files = 0
        self._pending: list[tuple[Path, str, int | None, int]] = []  # folder, name, file (None: removed), rename
        self._renames = 0
        if root.exists():
            self._note(root)

    def _note(self, folder: Path) -> None:
        """What stands there already is durable."""
        self._names[folder] = {}
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                self._names[folder][path.name] = FOLDER
                self._note(path)
            else:
                self._names[folder][path.name] = number = self._file_at(path)
                self._bytes[number] = path.read_bytes()

    def _file_at(self, path: Path, *, new: bool = False) -> int:
        """The file with this name; opening one to write keeps it, a rename over it does not."""
        if new or path not in self._now:
            self._files += 1
            self._now[path] = self._files
        return self._now[path]

    def _step(self, *, syncs: bool = False) -> None:
        """One more instant at which the power may fail, and the operation with it."""
        self.operations += 1
        if self.operations >= self._fails_at > 0:
            raise PowerLoss
        if self.operations == self._full_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        if syncs and self.operations >= self._broken_at > 0:
            raise FsyncFailed(errno.EIO, "Input/output error")

    def _name(self, path: Path, number: int | None, rename: int = 0) -> None:
        self._pending.append((path.parent, path.name, number, rename))

    # ------------------------------------------------------------ operations of Files

    def make_folder(self, path: Path) -> None:
        if path.is_dir():
            return
        if path.parent != path:
            self.make_folder(path.parent)
        self._step()
        path.mkdir()
        self._name(path, FOLDER)
        self._names.setdefault(path, {})
        self.sync_folder(path.parent)

    @contextlib.contextmanager
    def create(self, path: Path) -> Iterator[BinaryIO]:
        self._step()
        with open(path, "wb") as file:
            number = self._file_at(path)
            self._bytes.pop(number, None)
            self._name(path, number)
            yield file
            file.flush()
            self._step(syncs=True)
            self._bytes[number] = path.read_bytes()

    def produce(self, path: Path, write: Callable[[Path], int]) -> int:
        self._step()
        made = write(path)
        number = self._file_at(path)
        self._bytes.pop(number, None)
        self._name(path, number)
        self._step(syncs=True)
        self._bytes[number] = path.read_bytes()
        return made

    def replace(self, path: Path, data: bytes) -> None:
        self._step()
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(data)
        temporary.rename(path)
        self._name(path, self._file_at(path, new=True))

    def link(self, source: Path, target: Path) -> None:
        self._step()
        super().link(source, target)
        self._now[target] = self._now[source]
        self._name(target, self._now[target])

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)
        number = self._now[target] = self._now.pop(source)
        self._renames += 1
        self._name(target, number, self._renames)
        self._name(source, None, self._renames)

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)
        self._now.pop(path, None)
        self._name(path, None)

    def sync_folder(self, path: Path) -> None:
        self._step(syncs=True)
        rest = []
        for change in self._pending:
            if change[0] == path:
                self._apply(change)
            else:
                rest.append(change)
        self._pending = rest

    def _apply(self, change: tuple[Path, str, int | None, int]) -> None:
        folder, name, number, _ = change
        names = self._names.setdefault(folder, {})
        if number is None:
            names.pop(name, None)
        else:
            names[name] = number

    # ------------------------------------------------------------ what a machine finds afterwards

    def restore(self, survivors: Survivors, seed: int = 0) -> None:
        """Make the folder one of those that may be left: of the changes of names that no sync has made durable none,
        all or some survive, in order; bytes that were never fsynced are torn. A rename is one change: the old name does
        not go where the new one did not come."""
        rng = Random(seed)
        seen = self._contents()
        kept_renames: set[int] = set()
        for change in self._pending:
            number, rename = change[2], change[3]
            if survivors == "none" or (survivors == "some" and rng.random() < 0.5):
                continue
            if rename and number is not None:
                kept_renames.add(rename)
            if rename and number is None and rename not in kept_renames and self._is_pending(rename):
                continue
            self._apply(change)
        shutil.rmtree(self.root, ignore_errors=True)
        self._write(self.root, seen, rng)

    def _is_pending(self, rename: int) -> bool:
        """Whether no sync has made its new name durable."""
        return any(change[3] == rename and change[2] is not None for change in self._pending)

    def _contents(self) -> dict[int, bytes]:
        """Of every file that has a name now, as a process sees it."""
        return {number: path.read_bytes() for path, number in self._now.items() if path.exists()}

    def _write(self, folder: Path, seen: dict[int, bytes], rng: Random) -> None:
        folder.mkdir(parents=True)
        for name, number in self._names.get(folder, {}).items():
            path = folder / name
            if number == FOLDER:
                self._write(path, seen, rng)
            elif number in self._bytes:
                path.write_bytes(self._bytes[number])
            else:
                whole = seen.get(number, b"")
                path.write_bytes(whole[: rng.randint(0, len(whole))])
