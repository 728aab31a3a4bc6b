"""The simulated source: rows in a fixed order, some of them unreadable, those that are done already passed over."""

from __future__ import annotations

from penstock.core.events import Event, RowsRead, SourceEnded
from penstock.core.shape import Progress
from penstock.sim.pipeline import Pipeline

__all__ = ["Source"]


class Source:
    """counts_done: whether what is passed over counts as read; sources differ in that."""

    def __init__(self, pipeline: Pipeline, rows: int, progress: Progress, *, counts_done: bool) -> None:
        self.pipeline = pipeline
        self.rows = rows
        self._counts_done = counts_done
        self._at = progress.watermark
        self._done = frozenset(progress.ended_above)

    def read(self, max_rows: int) -> list[Event]:
        """The next `max_rows` positions; those that have ended before are passed over."""
        if self._at >= self.rows:
            return [SourceEnded(total_rows=self.rows)]
        positions: list[int] = []
        left = max_rows
        while left > 0 and self._at < self.rows:
            done = self._at in self._done
            if not done:
                positions.append(self._at)
            left -= not done or self._counts_done
            self._at += 1
        rows = [position for position in positions if self.pipeline.readable(position)]
        unreadable = [position for position in positions if not self.pipeline.readable(position)]
        sizes = [self.pipeline.size_bytes(position, ()) for position in rows]
        return [RowsRead(rows=rows, sizes_bytes=sizes, unreadable=unreadable, next_position=self._at)]
