"""The reader: a thread that reads the source one chunk ahead, so that a slow disk never holds the loop up."""

from __future__ import annotations

import queue
import threading
import time
from bisect import bisect_left
from contextlib import suppress

from penstock.core.events import Event
from penstock.core.shape import SourceMark
from penstock.data.base import Chunk, Source
from penstock.errors import InputError
from penstock.faults import fault
from penstock.runtime.inbox import Inbox
from penstock.runtime.watch.stalls import Activity, cpu_ns

SHUTDOWN_TIMEOUT_S = 2.0
TRIES, AGAIN_AFTER_S = 3, 1.0  # where the disk or the network failed, not the file
SLOW_READ_S, LONGEST_READ_S = 30.0, 600.0  # from when on it is said; and when the run ends of it
LONG_FIND_S = 60.0  # from when on reading that finds nothing is said: blank lines, or rows that have ended

NOTHING = Chunk(positions=[], rows=[], sizes_bytes=[], unreadable=[], next_position=0)


class ChunkRead(Event):
    """What the reader found; None at the source's end. `mark`: what was read of the source by then."""

    chunk: Chunk | None
    total_rows: int
    mark: SourceMark | None


class SourceFailed(Event):
    """The source can't be read on; asked again, the reader says so again."""

    error: InputError


class Reader:
    """`ended_above`: positions that the ledger knows as done. `mark`: what lives before have read of the source; it is
    compared before the first row is given. `reading`: for who watches that the thread comes back. `given_up`: it did
    not, and may hold the source for ever."""

    def __init__(
        self,
        source: Source,
        inbox: Inbox,
        start: int,
        ended_above: set[int],
        read_rows: int,
        mark: SourceMark | None = None,
    ) -> None:
        self._source = source
        self._inbox = inbox
        self._next = start
        self._skip = ended_above.__contains__ if ended_above else None
        self._read_rows = read_rows
        self._mark = mark or SourceMark()
        self._compared = False
        self._failed: InputError | None = None
        self.given_up = False
        self._cause: int | None = None  # of the chunk that is waited for
        self.reading = Activity(
            self._describe,
            patience_s=SLOW_READ_S,
            limit_s=LONGEST_READ_S,
            over=self._give_up,
            work=lambda: cpu_ns(self._thread.native_id),
        )
        self.finding = Activity(self._nothing_found, patience_s=LONG_FIND_S)  # at work all the time, yet without a row
        self._wanted: queue.SimpleQueue[tuple[int, int, int | None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="penstock-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def want(self, cause: int, max_rows: int, below: int | None) -> None:
        """Ask for one chunk, of positions below `below`; it comes to the inbox as ChunkRead. A smaller one than asked
        for is no end."""
        self._cause = cause
        if self.given_up:
            self._tell_failure()
        else:
            self._wanted.put((cause, max_rows, below))

    def close(self) -> None:
        """End, once the read that is under way is done; it is not waited for very long."""
        self._wanted.put(None)
        if self._thread.is_alive():
            self._thread.join(SHUTDOWN_TIMEOUT_S)

    @property
    def holds_source(self) -> bool:
        """Whether a read has not come back: then its file can't be closed."""
        return self._thread.is_alive()

    def _work(self) -> None:
        try:
            ahead: Chunk | None = NOTHING
            while (wanted := self._wanted.get()) is not None:
                cause, max_rows, below = wanted
                try:
                    found = self._read(max_rows, below) if ahead is NOTHING else ahead
                except InputError:
                    self._tell_failure()
                    continue
                if self.given_up:
                    return
                given, ahead = _split(found, max_rows) if found is not None else (None, None)
                fault("reader.chunk_read")
                self._cause = None
                self._inbox.put(ChunkRead(cause=cause, chunk=given, total_rows=self._next, mark=self._proven()))
                if ahead is NOTHING and (below is None or self._next < below):
                    with suppress(InputError):  # raised when it is asked for
                        ahead = self._read(self._read_rows, below)
        except BaseException as error:
            self._inbox.put(error)

    def _proven(self) -> SourceMark | None:
        return None if self._source.proof is None else self._source.proof.mark(self._next)

    def _read(self, max_rows: int, below: int | None) -> Chunk | None:
        if below is not None:
            max_rows = max(1, min(max_rows, below - self._next))
        if self._failed is not None:
            raise self._failed
        try:
            chunk = self._patiently(max_rows)
            if chunk is not None and below is not None and chunk.next_position >= below:
                chunk = self._last_below(chunk, below)
        except InputError as error:
            self._failed = self._failed or error
            raise
        if chunk is not None:
            self._next = chunk.next_position
        return chunk

    def _last_below(self, chunk: Chunk, below: int) -> Chunk:
        """The last chunk that is wanted: sources that count only what they give may have read too far."""
        if self._source.proof is not None:
            self._source.proof.check()
        return _between(chunk, 0, below) if chunk.next_position > below else chunk

    def _compare(self) -> None:
        """See that the source is the one that the lives before have read."""
        if self._source.proof is not None:
            self._source.proof.begin(self._mark)
        self._compared = True

    def _patiently(self, max_rows: int) -> Chunk | None:
        """Read; again, from the same position on, where what failed may pass. A source seeks after a failure."""
        for tries in range(1, TRIES + 1):
            self.reading.begin()
            self.finding.begin()
            try:
                if not self._compared:
                    self._compare()
                return self._source.read(self._next, self._skip, max_rows)
            except InputError as error:
                if not error.passing or tries == TRIES or self.given_up:
                    raise
            finally:
                self.reading.end()
                self.finding.end()
            time.sleep(AGAIN_AFTER_S)
        raise AssertionError("unreachable")

    # ------------------------------------------------------------ a disk that does not answer

    def _describe(self, seconds: int) -> str:
        source, row = self._source.locate(self._next)
        return f"{source}: no data read after row {row} for {seconds} s; the disk or network does not respond"

    def _nothing_found(self, seconds: int) -> str:
        source, row = self._source.locate(self._next)
        return f"{source}: {seconds} s of reading without a row after row {row}; still reading"

    def _give_up(self, seconds: int) -> None:
        """From the thread that watches. The reading thread is left where it is; it can't be ended."""
        self._failed = InputError(f"{self._describe(seconds)}. Run the same command to continue from there")
        self.given_up = True
        self._tell_failure()

    def _tell_failure(self) -> None:
        """Once for each chunk that is waited for, whichever thread finds out."""
        cause, self._cause = self._cause, None
        if cause is not None and self._failed is not None:
            self._inbox.put(SourceFailed(cause=cause, error=self._failed))


def _split(chunk: Chunk, max_rows: int) -> tuple[Chunk, Chunk]:
    """The first positions of a chunk, of at most `max_rows` rows together, and the rest (NOTHING where nothing is)."""
    cut = _cut(chunk, max_rows)
    if cut is None:
        return chunk, NOTHING
    return _between(chunk, 0, cut), _between(chunk, cut, chunk.next_position)


def _cut(chunk: Chunk, max_rows: int) -> int | None:
    """The first position that does not fit any more; None where all do, or where there is but one."""
    if not chunk.families:
        return chunk.positions[max_rows] if len(chunk.positions) > max_rows else None
    counts = [(position, 1) for position in chunk.positions]
    counts += [(family.position, len(family.rows)) for family in chunk.families]
    rows = 0
    for position, count in sorted(counts):
        if rows and rows + count > max_rows:
            return position
        rows += count
    return None


def _between(chunk: Chunk, begin: int, end: int) -> Chunk:
    """What a chunk holds of the positions from `begin` to below `end`, where reading continues."""
    here = slice(bisect_left(chunk.positions, begin), bisect_left(chunk.positions, end))
    return Chunk(
        positions=chunk.positions[here],
        rows=chunk.rows[here],
        sizes_bytes=chunk.sizes_bytes[here],
        unreadable=[bad for bad in chunk.unreadable if begin <= bad.position < end],
        next_position=end,
        origins=chunk.origins[here] if chunk.origins is not None else None,
        families=[family for family in chunk.families if begin <= family.position < end],
    )
