"""What has ended and is not durable yet: when to commit it, and how far the output may be published.

One commit is out at a time. A batch takes everything that has ended; the watermark it carries covers itself.
"""

from __future__ import annotations

from penstock.core.counts import Counts
from penstock.core.events import Commit
from penstock.core.flow.families import Family
from penstock.core.flow.positions import Positions
from penstock.core.shape import FlowLimits, Progress


class Commits:
    """finished: rows with an output. ended: source positions. dead: rows with a dead record. partial: source positions
    that have not ended and have results of paid steps, in the order of the first. Since the last batch."""

    def __init__(self, limits: FlowLimits, progress: Progress, now: float, *, ordered: bool) -> None:
        self.limits = limits
        self.positions = Positions(progress.watermark, progress.ended_above, limits.reach)
        self.finished: list[int] = []
        self.ended: list[int] = []
        self.dead: list[int] = []
        self.partial: dict[int, None] = {}
        self.ended_bytes = 0
        self.durable = self.positions.ended_count  # source rows that have ended and are committed
        self._out_id = 0
        self._out_ended = 0
        self._out_bytes = 0
        self._last_at = now
        self._published_to = progress.watermark
        self._unpublished_rows = 0
        self._unpublished_bytes = 0
        self._ordered = ordered
        self.final = False  # the batch that completes the phase was cut

    def end(self, position: int, size_bytes: int) -> None:
        """A source position has ended; `size_bytes` of memory go with the batch."""
        self.partial.pop(position, None)
        self.ended.append(position)
        self.ended_bytes += size_bytes

    def end_family(self, family: Family) -> None:
        """A source row has ended with all that is below it."""
        self.finished.extend(family.finished)
        self.dead.extend(family.dead)
        self.end(family.root, family.bytes)

    def idle(self) -> bool:
        """Nothing waits and nothing is out."""
        return not self._out_id and not self.ended

    def full(self, now: float) -> bool:
        """More waits than a disk that keeps up would leave, or for longer: admit nothing until it is written."""
        if self._out_id and now - self._last_at >= self.limits.commit_patience_s:
            return True
        # Twice: one batch is written while the next one gathers. More than that, and the disk is behind.
        rows = len(self.ended) + self._out_ended
        held = self.ended_bytes + self._out_bytes
        return rows >= 2 * self.limits.commit_rows or held >= 2 * self.limits.commit_bytes

    def next_batch(self, now: float, *, ended: bool, final: bool) -> Commit | None:
        """The batch to commit now, or None. `ended`: nothing more will come; `final`: the phase is complete."""
        # One at a time: each entry of the ledger counts on the one before it being durable.
        if self._out_id or (final and self.final):
            return None
        waiting = bool(self.ended or self.partial)
        due = waiting and (
            len(self.ended) >= self.limits.commit_rows
            or self.ended_bytes >= self.limits.commit_bytes
            or now - self._last_at >= self.limits.commit_every_s
        )
        # Rows that are durable and unpublished are seen by nobody: the end of a phase publishes them, however few.
        last = ended and bool(waiting or self._unpublished_rows)
        if not (due or final or last):
            if not waiting:
                self._last_at = now  # the clock of a batch starts with the first thing in it
            return None
        self._last_at = now
        self.final = final
        return self._cut(publish=final or last, final=final)

    def _cut(self, *, publish: bool, final: bool) -> Commit:
        # Rows end in any order; the ledger and the watermark take them ascending.
        self.ended.sort()
        self.positions.mark(self.ended)
        watermark = self.positions.watermark
        publish_to = self._publish_to(watermark, now=publish)
        batch = Commit(
            finished=self.finished,
            ended=self.ended,
            dead=self.dead,
            partial=sorted(self.partial),
            watermark=watermark,
            publish_to=publish_to,
            counts=Counts(),
            total_rows=None,
            final=final,
        )
        self._out_ended, self._out_bytes = len(self.ended), self.ended_bytes
        self.finished, self.ended, self.dead, self.ended_bytes = [], [], [], 0
        self.partial = {}
        return batch

    def _publish_to(self, watermark: int, *, now: bool) -> int | None:
        """How far to publish with this batch: not for a handful of rows, but as far as is known when it is time.

        In input order only what lies below the watermark counts; a slow head row delays its followers' publication.
        """
        self._unpublished_bytes += self.ended_bytes
        self._unpublished_rows += len(self.ended)
        rows = watermark - self._published_to if self._ordered else self._unpublished_rows
        enough = rows > 0 and (rows >= self.limits.part_rows or self._unpublished_bytes >= self.limits.part_bytes)
        if not (enough or now):
            return None
        self._published_to = watermark
        self._unpublished_rows = self._unpublished_bytes = 0
        return watermark

    def sent(self, instruction_id: int) -> None:
        self._out_id = instruction_id

    def done(self, instruction_id: int) -> None:
        # Only now: a run that is killed meanwhile finds these rows open again, and so must the figures.
        if instruction_id == self._out_id:
            self.durable += self._out_ended
            self._out_id = self._out_ended = self._out_bytes = 0
