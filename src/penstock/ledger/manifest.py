"""The chain of entries on disk: find the newest, append one unless another process has, verify.

An entry is put in place by `link()`, which fails when the name exists: of two coordinators that want to write entry
N, one wins. Entries are numbered from 1 without a gap, so the newest is found by probing names, and never by listing
a folder, which network file systems may answer from a stale cache. A hint says where to begin; it may be wrong.
"""

from __future__ import annotations

from pathlib import Path

from penstock.errors import CommitError, LedgerDamaged
from penstock.faults import fault
from penstock.ledger.entry import Entry, decode_entry, encode_entry, entry_hash
from penstock.ledger.files import Files, commit_error
from penstock.ledger.layout import Layout, staged_name

__all__ = ["LostRace", "Manifest"]

# How many entries, back from the newest, are checked against their hashes when a run is opened.
VERIFY_LAST = 8


class LostRace(Exception):
    """Another coordinator wrote the entry first. `entry` is what it wrote."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(f"entry {entry.seq} was written by epoch {entry.epoch}")
        self.entry = entry


class Manifest:
    def __init__(self, layout: Layout, files: Files) -> None:
        self._layout = layout
        self._files = files

    def read(self, seq: int) -> Entry:
        """Entry `seq`. Raises LedgerDamaged, also where there is none."""
        path = str(self._layout.entry(seq))
        entry = decode_entry(self._data(seq), path)
        if entry.seq != seq:
            raise LedgerDamaged(f"this file holds entry {entry.seq}", where=path)
        return entry

    def hash_of(self, seq: int) -> str:
        """What the entry after `seq` has to say is the hash of the one before it."""
        return entry_hash(self._data(seq), str(self._layout.entry(seq))) if seq else ""

    def newest(self) -> Entry | None:
        """The newest entry, its last links verified; None for a run that has none. Raises LedgerDamaged."""
        seq = self._newest_seq()
        if seq == 0:
            return None
        newest = self.read(seq)
        self._verify(newest, max(1, seq - VERIFY_LAST))
        return newest

    def successor_of(self, entry: Entry) -> Entry | None:
        """The entry after `entry`, if it exists."""
        return self.read(entry.seq + 1) if self._exists(entry.seq + 1) else None

    def replay(self) -> list[Entry]:
        """All entries, oldest first, every link verified. Raises LedgerDamaged."""
        newest = self._newest_seq()
        entries = [self.read(seq) for seq in range(1, newest + 1)]
        if entries:
            self._verify(entries[-1], 1)
        return entries

    def append(self, entry: Entry) -> None:
        """Make `entry` durable as the newest. When this returns, it is.

        Raises LostRace where another entry has that number; OSError where certainly nothing was written, so that the
        caller may try again; CommitError (fatal) where it can't be known.
        """
        path = self._layout.entry(entry.seq)
        temporary = self._layout.staged(staged_name(entry.epoch, entry.seq, "entry", f"{entry.owner}.json"))
        data = encode_entry(entry)
        try:
            self._files.write(temporary, data)
            fault("entry.temporary_written")
            self._files.link(temporary, path)
        except OSError as error:
            try:
                self._settle(entry, data, error)
            except (LostRace, OSError):
                self._discard(temporary)
                raise
        fault("entry.linked")
        try:
            self._files.sync_folder(self._layout.manifest)
            fault("entry.synced")
            self._files.unlink(temporary)
        except OSError as error:
            failure = commit_error(error, f"make manifest entry {entry.seq} durable")
            failure.fatal = True  # the entry may or may not survive: only a resume can tell
            raise failure from error
        self._leave_hint(entry.seq)

    def _discard(self, temporary: Path) -> None:
        try:
            self._files.unlink(temporary)
        except OSError:
            return  # garbage, for the next sweep

    def _settle(self, entry: Entry, data: bytes, error: OSError) -> None:
        """Find out which process won after `link` failed. Returns if it was this one: a network may lose the reply to a
        successful link."""
        path = self._layout.entry(entry.seq)
        try:
            present = self._files.read(path)
        except FileNotFoundError:
            raise error from None
        except OSError as unknown:
            raise CommitError(
                f"could not determine whether manifest entry {entry.seq} was written: {unknown.strerror or unknown}. "
                "Run the same command to continue.",
                where=str(path),
                errno=unknown.errno,
            ) from error
        if present != data:
            raise LostRace(decode_entry(present, str(path))) from None

    def _data(self, seq: int) -> bytes:
        path = self._layout.entry(seq)
        try:
            return self._files.read(path)
        except FileNotFoundError as error:
            raise LedgerDamaged("this manifest entry is missing", where=str(path)) from error

    def _newest_seq(self) -> int:
        """Gallop from the hint until a number is free, then halve the gap."""
        low = self._hint()
        step = 1
        while self._exists(low + step):
            low += step
            step *= 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._exists(middle) else (low, middle)
        return low

    def _exists(self, seq: int) -> bool:
        return self._files.exists(self._layout.entry(seq))

    def _hint(self) -> int:
        try:
            hint = int(self._files.read(self._layout.hint))
        except (OSError, ValueError):
            return 0
        return hint if hint > 0 and self._exists(hint) else 0

    def _leave_hint(self, seq: int) -> None:
        try:
            self._files.replace(self._layout.hint, b"%d\n" % seq)
        except OSError:
            return  # without a hint the next search begins further back
        fault("entry.hint_written")

    def _verify(self, newest: Entry, first: int) -> None:
        """Check the chain from `newest` back to entry `first`."""
        after = newest
        for seq in range(newest.seq - 1, first - 1, -1):
            if self.hash_of(seq) != after.previous:
                where = str(self._layout.entry(seq))
                raise LedgerDamaged(f"entry {after.seq} does not follow from this entry {seq}", where=where)
            after = self.read(seq)
        if after.seq == 1 and after.previous != "":
            raise LedgerDamaged("the first entry names one before it", where=str(self._layout.entry(1)))
