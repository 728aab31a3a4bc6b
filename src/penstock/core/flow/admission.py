"""What is read of the source, and when: as much as the window has room for, up to a limit or the source's end."""

from __future__ import annotations

from bisect import bisect_left

from penstock.core.events import RowsRead, SourceEnded
from penstock.core.flow.limit import admission_ends
from penstock.core.shape import FlowLimits, Progress


class Admission:
    """reading        a read is out
    next_position  from which reading continues
    below          nothing from this position on is admitted in this life; None: no limit
    total_rows     once no more rows will come: positions of the source, or those that the limit admits
    complete       the source's own end was seen, not that of a limit
    mark           the evidence of what was read
    """

    def __init__(self, limits: FlowLimits, progress: Progress) -> None:
        self._limits = limits
        self._ended_before = sorted(progress.ended_above)  # positions that the source will pass over
        self.below = admission_ends(limits.source_rows, progress)
        self.next_position = progress.watermark
        self.mark = progress.mark
        self.reading = False
        self.total_rows: int | None = None
        self.complete = False

    def came(self, event: RowsRead) -> None:
        self.reading = False
        # A source that failed says 0: nothing was read, and what was read before stands.
        self.next_position = max(self.next_position, event.next_position)
        self.mark = event.mark or self.mark

    def ended(self, event: SourceEnded) -> bool:
        """The source has ended. Returns whether that is news: a limit may have ended it before."""
        self.reading = False
        self.mark = event.mark or self.mark
        self.complete = True
        return self._ends(event.total_rows)

    def at_limit(self) -> bool:
        """Whether all that may be admitted has just been: the source ends here for this life."""
        # While a read is out, the source may still say its own end, which is worth more than the limit's.
        if self.below is None or self.next_position < self.below or self.reading:
            return False
        return self._ends(self.next_position)

    def _ends(self, total_rows: int) -> bool:
        if self.total_rows is not None:
            return False
        self.total_rows = total_rows
        return True

    def wanted(self, open_tasks: int, open_bytes: int, watermark: int) -> int:
        """How many records to ask for now; 0: none."""
        if self.reading or self.total_rows is not None:
            return 0
        limits = self._limits
        wanted = min(limits.window_rows - open_tasks, self._within_reach(watermark), limits.read_rows)
        # Ask again only when a good part of a read fits, so that the source is not asked row by row.
        if wanted < limits.read_rows // 4 and open_tasks > limits.window_rows // 2:
            return 0
        # One row is always admitted, however large: it would wait for ever else.
        return max(wanted, 0) if open_bytes < limits.window_bytes or not open_tasks else 0

    def _within_reach(self, watermark: int) -> int:
        """Positions within reach that have not ended: what was passed over may not push a read beyond it."""
        passed_over = len(self._ended_before) - bisect_left(self._ended_before, self.next_position)
        return watermark + self._limits.reach - self.next_position - passed_over
