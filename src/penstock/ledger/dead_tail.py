"""A commit with dead rows makes a part of dead/, so a long run would make thousands of small ones. They are joined in
tiers, as segments are: a row is written again about as often as the logarithm of their number.

The joined part takes the name of the first of them; the others are removed after it has been moved there. For that
instant somebody who reads dead/ sees some rows twice, and never too few.
"""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

from penstock.data.base import PartWriter
from penstock.ledger.entry import Entry, PartFact
from penstock.ledger.files import Files
from penstock.ledger.layout import Layout
from penstock.ledger.publish import tiers
from penstock.ledger.segments import check_part
from penstock.ledger.stage import Stage

__all__ = ["MAX_TAIL", "Joined", "dead_tail", "join_dead", "read_dead"]

MAX_TAIL = 32  # small parts, from which on they are joined
SMALL_ROWS = 20_000  # of dead rows; a larger part stays as it is


class Joined(NamedTuple):
    """tail: the small parts that are left after joining; drops: the files that go; names: of those in whose place the
    joined part comes."""

    tail: tuple[PartFact, ...]
    drops: tuple[str, ...]
    names: tuple[str, ...] = ()


def join_dead(stage: Stage, layout: Layout, files: Files, before: Entry, writer: PartWriter) -> Joined:
    """Stage one part in place of many small ones, where they are many. Raises LedgerDamaged, OSError."""
    if len(before.dead_tail) < MAX_TAIL:
        return Joined(before.dead_tail, ())
    kept, small = tiers(before.dead_tail)
    table = pa.concat_tables([read_dead(layout, files, part) for part in small])
    stage.add_dead(table, writer, small[0].name)
    joined = stage.dead_parts[-1]
    tail = (*kept, joined) if joined.rows <= SMALL_ROWS else ()
    names = tuple(part.name for part in small)
    return Joined(tail, tuple(f"dead/{name}" for name in names[1:]), names)


def dead_tail(tail: tuple[PartFact, ...], new: tuple[PartFact, ...]) -> tuple[PartFact, ...]:
    """The small parts at the end, after `new` ones were added."""
    for part in new:
        tail = (*tail, part) if part.rows <= SMALL_ROWS else ()
    return tail


def read_dead(layout: Layout, files: Files, part: PartFact, columns: list[str] | None = None) -> pa.Table:
    """Raises LedgerDamaged where the part is gone or not as it was written."""
    import pyarrow.parquet as pq

    path = layout.dead / part.name
    check_part(files, path, part)
    return pq.read_table(path, columns=columns, partitioning=None, use_threads=False)
