"""Small parts at the end of data/ or dead/, joined when they are many.

A commit with dead rows makes a part of dead/, and every stop one of data/, so that a long run, or one that was stopped
very often, would leave thousands of small ones. They are joined in tiers, as segments are: a row is written again
about as often as the logarithm of their number.

The joined part takes the name of the first of them. The others are removed just before it is moved there: what stands
in data/ is the beginning of the output at every moment, and holds no row twice.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from penstock.data.base import PartWriter
from penstock.errors import LedgerDamaged
from penstock.ledger.entry import Entry, PartFact
from penstock.ledger.files import Files
from penstock.ledger.layout import Layout
from penstock.ledger.part_keys import join_keys
from penstock.ledger.publish import tiers
from penstock.ledger.segments import check_part
from penstock.ledger.stage import Stage

__all__ = ["MAX_TAIL", "Joined", "join_tails", "tail_after"]

MAX_TAIL = 32  # small parts, from which on they are joined
SMALL_ROWS, SMALL_BYTES = 8_192, 1 << 20  # a larger part stays as it is: half of what a run publishes at a time


class Joined(NamedTuple):
    """data, dead: the small parts that are left after joining; drops: the files that go; names: of those in whose place
    a joined part comes."""

    data: tuple[PartFact, ...]
    dead: tuple[PartFact, ...]
    drops: tuple[str, ...]
    names: frozenset[str]


def join_tails(
    stage: Stage, layout: Layout, files: Files, before: Entry, writers: tuple[PartWriter, PartWriter]
) -> Joined:
    """Stage one part in place of many small ones, where they are many and as they were written. Raises OSError."""
    tails: list[tuple[PartFact, ...]] = []
    drops: list[str] = []
    names: list[str] = []
    for folder, tail, writer in zip(("data", "dead"), (before.data_tail, before.dead_tail), writers, strict=True):
        if len(tail) >= MAX_TAIL:
            kept, small = tiers(tail)
            paths = [layout.out_dir / folder / part.name for part in small]
            try:
                for path, part in zip(paths, small, strict=True):
                    check_part(files, path, part)
                keys = join_keys(layout, files, small) if all(part.keys for part in small) else None
            except LedgerDamaged:
                keys = None  # somebody has moved or altered one
            if keys is None:  # or an older Penstock wrote it without keys: they stay as they are, and the run continues
                tails.append(())
                continue
            rows = sum(part.rows for part in small)
            joined = stage.put_joined(folder, small[0].name, keys, rows, partial(writer.join, parts=paths))
            tail = tail_after(kept, (joined,))
            drops += [f"{folder}/{part.name}" for part in small[1:]]
            drops += [f".penstock/keys/{part.keys}" for part in small if part.keys]
            names += [f"{folder}/{part.name}" for part in small]
        tails.append(tail)
    return Joined(tails[0], tails[1], tuple(drops), frozenset(names))


def tail_after(tail: tuple[PartFact, ...], new: tuple[PartFact, ...]) -> tuple[PartFact, ...]:
    """The small parts at the end, after `new` ones were added."""
    for part in new:
        tail = (*tail, part) if part.rows <= SMALL_ROWS and part.bytes <= SMALL_BYTES else ()
    return tail
