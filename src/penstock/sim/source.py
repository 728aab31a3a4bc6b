"""The simulated source: rows in a fixed order, some of them unreadable, those that are done already passed over; and
what happens to its files between and within lives.

The shipped `Evidence` tells whether they are what they were; here its units are rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from msgspec import Struct

from penstock.core.events import Event, RowsRead, SourceEnded, StopRequested
from penstock.core.flow.evidence import Evidence
from penstock.core.shape import Progress, SourceMark
from penstock.sim.pipeline import SimPipeline

__all__ = ["Change", "SimFiles", "SimSource", "draw_changes", "draw_limits", "identity"]

KINDS = ("swap", "swap", "rewrite", "shorten")


class Change(Struct, frozen=True):
    """What becomes of the files, at a time or (at_s None) between the first life and the second. first, second: which
    rows, as shares of all.

    resumed: `at_s` counts from the beginning of the second life, and the rows are of those that were read by then
    """

    at_s: float | None
    kind: str
    first: float
    second: float
    resumed: bool = False


def identity(content: int) -> int:
    """The row that a content is of, rewritten or not."""
    return content if content >= 0 else -1 - content


def draw_limits(seed: int, rows: int, lives: int = 6) -> tuple[int | None, ...]:
    """`--limit` of one life after the other, and of all that follow: mostly none at all."""
    rng = Random(f"{seed}/limits")
    if rng.random() < 0.7:
        return (None,)
    drawn = [rng.choice((None, rng.randint(0, rows + 2), rng.randint(0, rows // 2 + 1))) for _ in range(lives)]
    if rng.random() < 0.5:
        drawn[:2] = [None, rng.randint(0, rows // 2 + 1)]  # lowered after the end of the source may have been seen
    return tuple(drawn)


def draw_changes(seed: int, horizon_s: float) -> tuple[Change, ...]:
    """A fifth of the scenarios has one or two."""
    rng = Random(f"{seed}/changes")
    if rng.random() < 0.8:
        return ()
    made = []
    if rng.random() < 0.4:
        return (Change(rng.uniform(0.0, 0.6), "swap", rng.random(), rng.random(), resumed=True),)
    for _ in range(rng.choice((1, 1, 2))):
        at_s = None if rng.random() < 0.4 else rng.uniform(0.0, horizon_s)
        first = rng.random()
        second = rng.random() if rng.random() < 0.5 else min(0.999, first + 0.2 * rng.random())  # often near it
        made.append(Change(at_s, rng.choice(KINDS), first, second))
    return tuple(made)


class SimFiles:
    """The content of the source's files, a number for each row, which outlives the coordinator. twice: there are two
    files, and the second is the first once more."""

    def __init__(self, rows: int, *, twice: bool = False) -> None:
        half = rows // 2
        self.twice = twice and half > 0
        self.original = [*range(half), *range(half)] if self.twice else list(range(rows))
        self.rows = list(self.original)
        self.bounds = [half, len(self.original)] if self.twice else [len(self.original)]
        self.touched = False  # whether it was ever anything else
        self.versions = [0] * len(self.bounds)  # what the status of each file tells

    def change(self, change: Change, read: int) -> bool:
        """Whether the content differs now. read: how many rows were read before this life."""
        rows = self.rows
        count = min(read, len(rows)) if change.resumed else len(rows)
        if not count:
            return False
        first, second = int(change.first * count), int(change.second * count)
        before = list(rows)
        if change.kind == "swap":
            rows[first], rows[second] = rows[second], rows[first]
        elif change.kind == "rewrite":
            rows[first] = -1 - rows[first]
        else:
            del rows[max(first, second) :]
        self._written(before)
        self.touched |= rows != before
        return rows != before

    def restore(self) -> None:
        before, self.rows = self.rows, list(self.original)
        self._written(before)

    def _written(self, before: list[int]) -> None:
        for file, end in enumerate(self.bounds):
            here = slice(self.begins(file), end)
            self.versions[file] += self.rows[here] != before[here]

    def begins(self, file: int) -> int:
        return self.bounds[file - 1] if file else 0

    def place(self, position: int) -> tuple[int, int]:
        """(file, its first position)."""
        file = sum(end <= position for end in self.bounds)
        return file, self.begins(file)

    def wanted(self) -> Counter[int]:
        return Counter(self.original)


class SimSource:
    """One reading of the files. counts_done: whether what is passed over counts as read; sources differ in that.

    saw: gets each position with its content. refused: why reading ended, "" while it has not.
    """

    def __init__(
        self,
        pipeline: SimPipeline,
        files: SimFiles,
        progress: Progress,
        *,
        counts_done: bool,
        saw: Callable[[int, int], None] = lambda position, content: None,
    ) -> None:
        self.pipeline = pipeline
        self.refused = ""
        self._files, self._saw = files, saw
        self._total = len(files.original)  # as the run's first start has found it
        self._counts_done = counts_done
        self._at = progress.watermark
        self._done = frozenset(progress.ended_above)
        self._mark = progress.mark or SourceMark()
        self._evidence = Evidence(files.versions)
        self._compared = False
        self._open = -1  # the file that is being read

    def read(self, max_rows: int, below: int | None = None) -> list[Event]:
        """The next `max_rows` positions; those that have ended before are passed over."""
        if not self._compared:
            self._compared = True
            self._compare()
        end = self._total if below is None else min(below, self._total)
        at_end = self._at >= self._total
        positions = self._positions(max_rows, end)
        if self._at == below and not at_end and not self.refused:
            self._look_at(self._files.place(self._at - 1)[0])
        if self.refused:
            nothing = RowsRead(rows=[], sizes_bytes=[], unreadable=[], next_position=0)
            return [nothing, StopRequested(reason="failed")]
        mark = self._evidence.mark(self._at)
        if at_end:
            return [SourceEnded(total_rows=self._total, mark=mark)]
        return [self._rows(positions, mark)]

    def _positions(self, max_rows: int, end: int) -> list[int]:
        positions: list[int] = []
        room = max_rows
        while room > 0 and self._at < end and not self.refused:
            if self._at >= len(self._files.rows):
                self.refused = "shorter"
                break
            self._feed(self._at)
            done = self._at in self._done
            if not done:
                positions.append(self._at)
                self._saw(self._at, self._files.rows[self._at])
            room -= not done or self._counts_done
            self._at += 1
        return positions

    def _rows(self, positions: list[int], mark: SourceMark) -> RowsRead:
        pipeline = self.pipeline
        left = {position: pipeline.left(position) for position in positions}
        rows = [position for position in positions if pipeline.readable(position) and len(left[position]) == 1]
        return RowsRead(
            rows=rows,
            sizes_bytes=[pipeline.size_bytes(position, ()) for position in rows],
            unreadable=[position for position in positions if not pipeline.readable(position)],
            next_position=self._at,
            families=[
                (position, [pipeline.size_bytes(position, path) for path in paths])
                for position, paths in left.items()
                if len(paths) > 1
            ],
            already_dead=[position for position in positions if pipeline.died_before(position)],
            mark=mark,
        )

    # ------------------------------------------------------------ whether it is what it was

    def _compare(self) -> None:
        """What the lives before have read, before anything is given."""
        if len(self._files.rows) < self._total:
            self.refused = "shorter"
            return
        self._hash_to(self._evidence, self._mark.file, self._mark.units)
        if not self._evidence.proves(self._mark):
            self.refused = "changed"

    def _feed(self, position: int) -> None:
        """A row is read, and those before it were, or had ended before."""
        file, begin = self._files.place(position)
        self._hash_to(self._evidence, file, position - begin)
        if file != self._open:
            self._open = file
            self._look_at(file)
        unit = position - begin
        if self._evidence.feed(file, unit, unit + 1, (_encoded(self._files.rows[position]),)):
            self._look_at(file)
        if position + 1 == self._files.bounds[file]:
            self._look_at(file)
            self._hash_to(self._evidence, file + 1, 0)

    def _look_at(self, file: int) -> None:
        """Whether what was read stands there still, where a file is suspect."""
        version = self._files.versions[file]
        if self._evidence.is_suspect(file, version):
            mark, again = self._evidence.mark(0), Evidence()
            self._hash_to(again, mark.file, mark.units)
            if not again.proves(mark):
                self.refused = "changed while it was read"
            self._evidence.cleared(file, version)

    def _hash_to(self, evidence: Evidence, file: int, units: int) -> None:
        bounds, rows = self._files.bounds, self._files.rows
        while evidence.file < min(file, len(bounds)) or (evidence.file == file and evidence.units < units):
            begin, end = self._files.begins(evidence.file), bounds[evidence.file]
            last = end if evidence.file < file else begin + units
            parts = [_encoded(content) for content in rows[begin + evidence.units : last]]
            evidence.feed(evidence.file, evidence.units, last - begin, parts)
            if evidence.file < file:
                evidence.end_file(end - begin)


def _encoded(content: int) -> bytes:
    return content.to_bytes(8, "little", signed=True)
