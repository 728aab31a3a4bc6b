"""The reader: a thread that reads the source one chunk ahead, so that a slow disk never holds the loop up."""

from __future__ import annotations

import queue
import threading
import time
from bisect import bisect_left
from contextlib import suppress

from penstock.core.events import Event
from penstock.data.base import Chunk, Source
from penstock.errors import InputError
from penstock.faults import fault
from penstock.runtime.inbox import Inbox
from penstock.runtime.stalls import Activity, cpu_ns

PARTING_S = 2.0
TRIES, AGAIN_AFTER_S = 3, 1.0  # where the disk or the network failed, not the file
SLOW_READ_S, LONGEST_READ_S = 30.0, 600.0  # from when on it is said; and when the run ends of it
LONG_FIND_S = 60.0  # from when on reading that finds nothing is said: blank lines, or rows that have ended

NOTHING = Chunk(positions=[], rows=[], sizes_bytes=[], unreadable=[], next_position=0)


class ChunkRead(Event):
    """What the reader found; None at the end. `complete`: that is the source's end, not the limit's."""

    chunk: Chunk | None
    total_rows: int
    complete: bool


class SourceFailed(Event):
    """The source can't be read on; asked again, the reader says so again."""

    error: InputError


class Reader:
    """`ended_above`: positions that the ledger knows as done. `limit`: read only positions below it. `reading`: for who
    watches that the thread comes back. `given_up`: it did not, and may hold the source for ever."""

    def __init__(
        self, source: Source, inbox: Inbox, start: int, ended_above: set[int], limit: int | None, read_rows: int
    ) -> None:
        self._source = source
        self._inbox = inbox
        self._next = start
        self._skip = ended_above.__contains__ if ended_above else None
        self._limit = limit
        self._read_rows = read_rows
        self._complete = False
        self._failed: InputError | None = None
        self.given_up = False
        self._cause: int | None = None  # of the chunk that is waited for
        self.reading = Activity(
            self._told,
            patience_s=SLOW_READ_S,
            limit_s=LONGEST_READ_S,
            over=self._give_up,
            work=lambda: cpu_ns(self._thread.native_id),
        )
        self.finding = Activity(self._nothing_found, patience_s=LONG_FIND_S)  # at work all the time, yet without a row
        self._wanted: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="penstock-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def want(self, cause: int, max_rows: int) -> None:
        """Ask for one chunk; it comes to the inbox as ChunkRead. Smaller ones than asked for are no end."""
        self._cause = cause
        if self.given_up:
            self._tell_failure()
        else:
            self._wanted.put((cause, max_rows))

    def close(self) -> None:
        """End, once the read that is under way is done; it is not waited for very long."""
        self._wanted.put(None)
        if self._thread.is_alive():
            self._thread.join(PARTING_S)

    @property
    def holds_source(self) -> bool:
        """Whether a read has not come back: then its file can't be closed."""
        return self._thread.is_alive()

    def _work(self) -> None:
        try:
            ahead: Chunk | None = NOTHING
            while (wanted := self._wanted.get()) is not None:
                cause, max_rows = wanted
                try:
                    found = self._read(max_rows) if ahead is NOTHING else ahead
                except InputError:
                    self._tell_failure()
                    continue
                if self.given_up:
                    return
                given, ahead = _split(found, max_rows) if found is not None else (None, None)
                fault("reader.chunk_read")
                self._cause = None
                self._inbox.put(ChunkRead(cause=cause, chunk=given, total_rows=self._next, complete=self._complete))
                if ahead is NOTHING:
                    with suppress(InputError):  # told when it is asked for
                        ahead = self._read(self._read_rows)
        except BaseException as error:
            self._inbox.put(error)

    def _read(self, max_rows: int) -> Chunk | None:
        if self._limit is not None:
            max_rows = min(max_rows, self._limit - self._next)
            if max_rows <= 0:
                return None
        if self._failed is not None:
            raise self._failed
        try:
            chunk = self._patiently(max_rows)
        except InputError as error:
            self._failed = self._failed or error
            raise
        if chunk is None:
            self._complete = True
        else:
            self._next = chunk.next_position
        return chunk

    def _patiently(self, max_rows: int) -> Chunk | None:
        """Read; again, from the same position on, where what failed may pass. A source seeks after a failure."""
        for tries in range(1, TRIES + 1):
            self.reading.begin()
            self.finding.begin()
            try:
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

    def _told(self, seconds: int) -> str:
        source, row = self._source.locate(self._next)
        return f"{source}: nothing was read after row {row} for {seconds} s; its disk or network does not answer"

    def _nothing_found(self, seconds: int) -> str:
        source, row = self._source.locate(self._next)
        return f"{source}: {seconds} s of reading have found no row after row {row}; the reading goes on"

    def _give_up(self, seconds: int) -> None:
        """From the thread that watches. The reading thread is left where it is; it can't be ended."""
        self._failed = InputError(f"{self._told(seconds)}. The same command goes on from there")
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
    """What a chunk holds of the positions from `begin` to below `end`, where reading goes on."""
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
