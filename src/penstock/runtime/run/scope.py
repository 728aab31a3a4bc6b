"""Which rows a run takes, where it keeps what becomes of them, and within which limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from penstock.core.shape import SourceMark
from penstock.data.base import Source
from penstock.data.open import open_rows, open_source
from penstock.runtime.retry.scope import ChosenSource, Selection
from penstock.spec.pipeline import Pipeline

__all__ = ["RunScope", "cut_for_retry", "open_pipeline_source"]


class RunScope(NamedTuple):
    """Made by `run`, for all rows of the source, or by `retry`, for chosen ones.

    ledger     the folder of its ledger: the output folder, or one inside that for a retry
    out_dir    the output folder, where the logs are
    limit      take at most this many rows of the source; None: all
    max_dead   how many source rows may die, as a count or a share
    selection  the rows that it keeps to; None: all
    columns    of the output, where an earlier run has settled them
    mark       what an earlier run has read of the source
    """

    ledger: Path
    out_dir: Path
    limit: int | None
    max_dead: int | float
    selection: Selection | None = None
    columns: pa.Schema | None = None
    mark: SourceMark | None = None

    def source(self, opened: Source) -> Source:
        """The rows of the scope, of those of the pipeline's source."""
        return opened if self.selection is None else ChosenSource(opened, self.selection.positions)

    def cut(self, planned: Sequence[int], steps: int) -> tuple[int, ...]:
        """The steps at which the phases of its ledger end."""
        return tuple(planned) if self.selection is None else cut_for_retry(planned, steps)


def cut_for_retry(cut: Sequence[int], steps: int) -> tuple[int, ...]:
    """The phases of a run over chosen rows: those of the run, and one that never begins. So what the last of them
    finishes stays in segments, with its keys."""
    return (*(cut or (steps,)), steps)


def open_pipeline_source(pipeline: Pipeline) -> Source:
    """Raises InputError, ConfigError."""
    source = pipeline.source
    if source.rows is not None:
        return open_rows([dict(row) for row in source.rows])
    return open_source(source.paths, source.format, source.column_types)
