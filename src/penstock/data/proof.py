"""Evidence of what was read of files: each is hashed as it is read, and a resumed run compares before it skips the rows
that are done (core/flow/evidence.py).

A file's size, time and first bytes do not tell that its lines have changed places, so all that becomes rows is hashed.
All calls come from the thread that reads.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from penstock.core.flow.evidence import Evidence
from penstock.core.shape import SourceMark
from penstock.data.passing import may_pass
from penstock.data.paths import TEXT_FORMATS, DataFile
from penstock.errors import InputError

__all__ = ["BLOCK_BYTES", "Content", "FileProof", "ReadProof", "byte_content", "byte_range", "head_of"]

BLOCK_BYTES = 1 << 20
_HEAD_BYTES, _TAIL_BYTES = 64 << 10, 4 << 10  # of a file that is not read yet: they tell it from one of its size
_RESTORE = "Restore the original file, or use another output folder (--out)"

# (path, first unit, unit after the last or None: to the end) -> the bytes of those units. Raises OSError, ValueError.
Content = Callable[[str, int, int | None], Iterator[bytes | memoryview]]


def byte_range(path: str, begin: int, end: int | None) -> Iterator[bytes]:
    """The bytes of a file from `begin` to `end`, block by block; fewer where it is shorter. Raises OSError."""
    with open(path, "rb", buffering=0) as stream:
        stream.seek(begin)
        while end is None or begin < end:
            data = stream.read(BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - begin))
            if not data:
                return
            begin += len(data)
            yield data


byte_content: Content = byte_range


def status_of(file: int | os.PathLike[str]) -> tuple[int, ...]:
    """Size and times of a file, which differ after it was written to."""
    found = os.stat(file)
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def head_of(path: str | os.PathLike[str], size_bytes: int) -> str:
    """A hash of the first bytes of a file, as if it had `size_bytes`. Raises OSError."""
    return _hash_of(path, 0, min(_HEAD_BYTES, size_bytes))


def ends_of(path: str | os.PathLike[str], size_bytes: int) -> tuple[str, str]:
    """Hashes of the first and of the last bytes of a file, as if it had `size_bytes`. Raises OSError."""
    return head_of(path, size_bytes), _hash_of(path, max(0, size_bytes - _TAIL_BYTES), size_bytes)


def _hash_of(path: str | os.PathLike[str], begin: int, end: int) -> str:
    found = hashlib.blake2b(digest_size=8)
    for data in byte_range(os.fspath(path), begin, end):
        found.update(data)
    return found.hexdigest()


class FileProof:
    """What was read of one file while it is open. `path`: names that very file, also once another has its name.

    to_check: whether rows may be given only after `check`, since what became of them was not hashed as it was read: it
    had been hashed before, or (as in Parquet and Arrow) is read by a library once it was hashed.
    """

    def __init__(self, proof: ReadProof, index: int, file: DataFile) -> None:
        self.file = file
        self.to_check = True
        self._proof, self._index = proof, index
        try:
            self._descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(f"can't be opened: {error.strerror}", where=file.name, passing=may_pass(error)) from None
        self.path = f"/proc/self/fd/{self._descriptor}"
        try:
            self.refuse_shorter()
            self._refuse_another()
            self.check()
        except InputError:
            self.close()
            raise

    def feed(self, begin: int, end: int, data: Iterable[bytes | memoryview]) -> None:
        """Units `begin` to below `end` are about to become rows; `data` is their content. Raises InputError."""
        again = self._proof.feed(self._index, begin, end, data)
        self.to_check = again or self.file.format not in TEXT_FORMATS

    def refuse_shorter(self) -> None:
        """Raises InputError where the file has fewer bytes than it had when the source was opened."""
        size_bytes = os.fstat(self._descriptor).st_size
        if size_bytes < self.file.size_bytes:
            raise InputError(
                f"shrank during the run: {self.file.size_bytes} bytes at the start, {size_bytes} now. {_RESTORE}",
                where=self.file.name,
            )

    def _refuse_another(self) -> None:
        """Raises InputError where this is not the file that the source was opened with, but one that has come in its
        place. Text may have grown: its end is where it was, and what ends there is what ended there."""
        size_bytes, file = os.fstat(self._descriptor).st_size, self.file
        is_text, was = file.format in TEXT_FORMATS, self._proof.ends[self._index]
        try:
            now = ends_of(self.path, file.size_bytes)
        except OSError as error:
            raise InputError(f"can't be read: {error.strerror}", where=file.name, passing=may_pass(error)) from None
        grown = size_bytes != file.size_bytes
        if now[0] != was[0] or (grown and not is_text) or (now[1] != was[1] and (grown or not is_text)):
            raise InputError(
                f"was replaced or rewritten after the run started, before it was read: "
                f"{file.size_bytes} bytes then, {size_bytes} now. {_RESTORE}",
                where=file.name,
            )

    def check_end(self) -> None:
        """As `check`, once the end of the file was read. Raises InputError also where lines were put in before it, so
        that it is not the end any more."""
        if self._descriptor >= 0:
            if os.fstat(self._descriptor).st_size > self.file.size_bytes:
                self._refuse_another()
            self.check()

    def check(self) -> None:
        """Raises InputError where what was read of this file, or of those before it, does not stand there any more."""
        if self._descriptor >= 0:
            self.refuse_shorter()
            self._proof.compare(self._index, status_of(self._descriptor), self.path)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class ReadProof:
    """The evidence of one source of files. content: how a file of its format is read in units.

    ends: of each file, what `ends_of` gave when it became the input of the run
    """

    def __init__(self, files: Sequence[DataFile], content: Content) -> None:
        self._files, self._content = files, content
        self.ends: list[tuple[str, str]] = []
        self._evidence: Evidence | None = None
        self._opened: FileProof | None = None

    def note_ends(self) -> None:
        """The files are what they are from here on. Raises InputError."""
        ends = []
        for file in self._files:
            try:
                ends.append(ends_of(file.path, file.size_bytes))
            except OSError as error:
                message = f"can't be read: {error.strerror}"
                raise InputError(message, where=file.name, passing=may_pass(error)) from None
        self.ends = ends

    # ------------------------------------------------------------ across lives

    def refuse_longer(self, mark: SourceMark, known: Mapping[str, Any]) -> None:
        """For a run that has read its source to the end: raises InputError where an archive has more behind that end.
        Only an archive that has broken off may be longer later. known: the identity that the run began with."""
        sizes = {file["name"]: file["size_bytes"] for file in known.get("files") or []}
        if any(file.size_bytes > sizes.get(file.name, file.size_bytes) for file in self._files):
            if not mark.digest:  # of an older version, which continued with the same size only
                raise self._changed(mark)
            self.begin(mark)

    def begin(self, mark: SourceMark) -> None:
        """Hash again what `mark` covers, and continue from there; nothing is hashed before this call.

        Raises InputError where the content has changed, or can't be read.
        """
        if not self.ends:
            self.note_ends()
        try:
            evidence = Evidence([status_of(file.path) for file in self._files])
        except OSError as error:
            where = str(error.filename)
            raise InputError(f"can't be read: {error.strerror}", where=where, passing=may_pass(error)) from None
        self._hash_to(evidence, mark.file, mark.units)
        if not evidence.proves(mark):
            raise self._changed(mark)
        self._evidence = evidence

    def mark(self, position: int) -> SourceMark | None:
        """What was read so far; every row below `position` was. None before `begin`."""
        return None if self._evidence is None else self._evidence.mark(position)

    def _changed(self, mark: SourceMark) -> InputError:
        read = self._files[: mark.file + 1]
        latest = max(read, key=_changed_at)
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(_changed_at(latest)))
        where = "its content" if len(read) == 1 else "the content of a file that was read, probably this one,"
        return InputError(
            f"{where} has changed since this run read it (last modified: {when}), so finished rows can't be "
            "distinguished "
            f"from unfinished ones. {_RESTORE}",
            where=latest.name,
        )

    # ------------------------------------------------------------ while reading

    def open(self, index: int) -> FileProof | None:
        """For the reader of a file; None while nothing is hashed."""
        if self._evidence is None:
            return None
        self._opened = FileProof(self, index, self._files[index])
        return self._opened

    def feed(self, index: int, begin: int, end: int, data: Iterable[bytes | memoryview]) -> bool:
        assert self._evidence is not None
        self._hash_to(self._evidence, index, begin)  # what was passed over without being read
        return self._evidence.feed(index, begin, end, data)

    def ended(self, opened: FileProof | None, index: int) -> None:
        """The end of a file was read. Raises InputError as `check`."""
        if opened is not None and self._evidence is not None:
            opened.check_end()
            self._hash_to(self._evidence, index, 0)
            self._hash_to(self._evidence, index + 1, 0, opened.path)

    def check(self) -> None:
        """What was read stands there still, as far as a change can matter. Raises InputError."""
        if self._opened is not None:
            self._opened.check()

    def compare(self, index: int, status: tuple[int, ...], path: str) -> None:
        """Where a file is suspect, hash all that was read once more. `path` is where it is open."""
        evidence = self._evidence
        assert evidence is not None
        if not evidence.is_suspect(index, status):
            return
        mark, again = evidence.mark(0), Evidence()
        self._hash_to(again, min(mark.file, index), 0)
        self._hash_to(again, mark.file, mark.units, path)
        if not again.proves(mark):
            raise InputError(
                "changed during the run, including content that was already read: rows may be missing or duplicated. "
                f"{_RESTORE}",
                where=self._files[index].name,
            )
        evidence.cleared(index, status)

    def _hash_to(self, evidence: Evidence, file: int, units: int, path: str = "") -> None:
        """Hash all from where the evidence ends to unit `units` of a file. path: where the current file is open."""
        while evidence.file < min(file, len(self._files)):
            ends = self._files[evidence.file].size_bytes
            self._hash_one(evidence, ends if self._content is byte_content else None, path)
            evidence.end_file(ends)
            path = ""
        if evidence.file == file < len(self._files) and evidence.units < units:
            self._hash_one(evidence, units, path)

    def _hash_one(self, evidence: Evidence, end: int | None, path: str) -> None:
        file = self._files[evidence.file]
        begin = evidence.units
        try:
            parts = self._content(path or str(file.path), begin, end)
            evidence.feed(evidence.file, begin, sys.maxsize if end is None else end, parts)
        except (OSError, ValueError) as error:  # Arrow's errors are among these
            passing = may_pass(error)
            raise InputError(f"can't be read again: {error}", where=file.name, passing=passing) from None


def _changed_at(file: DataFile) -> float:
    try:
        return os.stat(file.path).st_mtime
    except OSError:
        return 0.0
