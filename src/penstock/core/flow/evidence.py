"""Evidence of what was read: one hash over the files of a source in their order, as far as they have become rows.

    first life    feed ─▶ mark ─▶ Commit
    later life    feed what `mark` covers ─▶ proves(mark)? ─▶ feed, mark, Commit

A file is read in units: bytes of text and of Arrow, row groups of Parquet. One hash covers them all, so
that an entry of the ledger does not grow with the number of files.

A later life reads what lies between its watermark and the mark once more, after it was compared, and does not hash it
again; it looks at the file's status after each such read, before the rows are given.

Within a life nobody hashes twice what has not changed: a file whose status (inode, size, times) is not what it was when
the life began is suspect, and then all that was read is hashed once more and compared. A change that touches only what
was read needs no look: no row can have moved to where it would be read again.

Invariant: what a mark covers includes every row that was given before the mark was taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from penstock.core.shape import SourceMark
from penstock.errors import InvariantError

DIGEST_CHARS = 32


class Evidence:
    """file, units: the file that is being read, and how much of it was. statuses: of the files when the life began."""

    def __init__(self, statuses: Sequence[object] = ()) -> None:
        self._hash = hashlib.sha256()
        self._statuses = list(statuses)
        self.file = self.units = 0

    def feed(self, file: int, begin: int, end: int, parts: Iterable[bytes | memoryview]) -> bool:
        """Units `begin` to below `end` of a file are about to become rows; `parts` is their content. Whether some of it
        was fed before, and so was not hashed as it was read now: then the file has to be looked at (`is_suspect`)
        before its rows are given.

        What was fed before is passed over: where units are bytes, also a part of them. Where `parts` raises, nothing
        was fed. Raises InvariantError where units were left out.
        """
        if file < self.file or (file == self.file and end <= self.units):
            return True
        if file > self.file or begin > self.units:
            raise InvariantError(f"file {file} is read from unit {begin}; it is at {self.units} of file {self.file}")
        skip, fed = self.units - begin, self._hash.copy()
        again = skip > 0
        for part in parts:
            if skip >= len(part):
                skip -= len(part)
                continue
            fed.update(part[skip:] if skip else part)
            skip = 0
        self._hash, self.units = fed, end
        return again

    def end_file(self, size_bytes: int) -> None:
        """The current file was read to its end."""
        self._hash.update(size_bytes.to_bytes(8, "little"))
        self.file, self.units = self.file + 1, 0

    def mark(self, position: int) -> SourceMark:
        """What was fed so far; every row below `position` is of it."""
        return SourceMark(position, self.file, self.units, self._digest())

    def proves(self, mark: SourceMark) -> bool:
        """Whether what was fed is what `mark` covers. A mark without a digest covers nothing."""
        return not mark.digest or (self._digest(), self.file, self.units) == (mark.digest, mark.file, mark.units)

    def is_suspect(self, file: int, status: object) -> bool:
        """Whether somebody has written to a file since the life began, or since it was `cleared`."""
        return self._statuses[file] != status

    def cleared(self, file: int, status: object) -> None:
        """All that was read was compared after the file had this status."""
        self._statuses[file] = status

    def _digest(self) -> str:
        return self._hash.hexdigest()[:DIGEST_CHARS]
