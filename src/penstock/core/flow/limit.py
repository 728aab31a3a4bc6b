"""What `--limit` admits in a life, and when nothing is left to admit.

A limit belongs to a life, not to a run: lives of one run may have a lower or a higher one, or none.
"""

from __future__ import annotations

from penstock.core.shape import Progress


def admission_ends(limit: int | None, progress: Progress) -> int | None:
    """The position from which on nothing is admitted in this life; None: no limit.

    Where rows beyond the limit have ended in a life before, those between are admitted as well: a phase ends without
    gaps, since what follows (publication in order, the next phase, a life without a limit) counts from the watermark.
    """
    if limit is None:
        return None
    return max(limit, progress.watermark, max(progress.ended_above, default=-1) + 1)


def all_admitted(watermark: int, total_rows: int | None, limit: int | None) -> bool:
    """Whether a finished run has nothing left to admit, by its watermark among the source rows.

    That the number of rows is known does not tell: the source's end may have been seen while rows before it were
    open, and a later life with a limit has left them out.
    """
    return (total_rows is not None and watermark >= total_rows) or (limit is not None and watermark >= limit)
