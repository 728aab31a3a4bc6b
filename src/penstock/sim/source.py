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
        room = max_rows
        while room > 0 and self._at < self.rows:
            done = self._at in self._done
            if not done:
                positions.append(self._at)
            room -= not done or self._counts_done
            self._at += 1
        pipeline = self.pipeline
        left = {position: pipeline.left(position) for position in positions}
        rows = [position for position in positions if pipeline.readable(position) and len(left[position]) == 1]
        return [
            RowsRead(
                rows=rows,
                sizes_bytes=[pipeline.size_bytes(position, ()) for position in rows],
                unreadable=[position for position in positions if not pipeline.readable(position)],
                next_position=self._at,
                families=[
                    (position, [pipeline.size_bytes(position, path) for path in paths])
                    for position, paths in left.items()
                    if len(paths) > 1
                ],
                counted=[position for position in positions if pipeline.died_before(position)],
            )
        ]
