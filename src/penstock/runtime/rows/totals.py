"""The totals of a run from those of its flow, which knows the rows of one phase only."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.core.events import FlowCounts
from penstock.ledger.base import Counts, Finished, Receipt

__all__ = ["Totals"]


class Totals:
    """before: the run's totals when this phase was taken up, and `flow` what its flow counted then.

    carries: the rows that the phase finishes go on to the next: they are no output yet, and their source rows have not
    ended. `durable` is how many source rows have ended and are committed.
    """

    def __init__(
        self, before: Counts, flow: FlowCounts, step_names: Sequence[str], *, first: bool, carries: bool
    ) -> None:
        self._before, self._flow, self._names = before, flow, step_names
        self.first, self.carries = first, carries
        self._going_on = 0  # source rows of the phase that were carried over
        self.durable = before.ended_sources

    def carry(self, finished: Sequence[Finished]) -> None:
        """These rows are about to be committed."""
        if self.carries:
            self._going_on += len({item.position for item in finished})

    def committed(self, sent: Counts, receipt: Receipt) -> None:
        """Rows that could not be written are dead instead of going on."""
        self._going_on -= receipt.counts.ended_sources - sent.ended_sources
        self.durable = receipt.counts.ended_sources

    def now(self, flow: FlowCounts) -> Counts:
        before, start = self._before, self._flow
        out = 0 if self.carries else flow.out - start.out
        return Counts(
            rows_in=flow.rows_in if self.first else before.rows_in,  # what is read again was counted before
            out=before.out + out,
            dead=before.dead + flow.dead - start.dead,
            filtered=before.filtered + flow.filtered - start.filtered,
            dead_sources=before.dead_sources + flow.dead_sources - start.dead_sources,
            ended_sources=before.ended_sources + flow.ended_sources - start.ended_sources - self._going_on,
            steps=dict(zip(self._names, flow.steps, strict=True)),
        )
