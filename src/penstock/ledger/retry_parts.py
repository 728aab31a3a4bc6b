"""Inserts the results of a retry: into the output, or into the dead rows with a new reason.

Parts with the new rows in their places, dead/ without the chosen rows and with those that died again: all in one entry,
before which nothing of the run changes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import msgspec
import pyarrow as pa

from penstock.core.counts import Counts
from penstock.data.base import PartWriter
from penstock.data.dead import dead_table
from penstock.ledger.base import DeadRow
from penstock.ledger.dead_rows import dead_of, standing_parts
from penstock.ledger.entry import Entry, PartFact
from penstock.ledger.files import Files
from penstock.ledger.keyed import Key, keys_of, without_keys
from penstock.ledger.layout import Layout
from penstock.ledger.manifest import Manifest
from penstock.ledger.opening import successor
from penstock.ledger.part_keys import DeadKey, encode_keys, read_keys
from penstock.ledger.segments import check_part
from penstock.ledger.stage import Stage

__all__ = ["Retried", "stage_retry"]


class Retried(msgspec.Struct):
    """What became of dead rows that were run again.

    chosen     their keys, which leave the dead-letter table
    keys       of the rows of each part of that table, in order
    rows       their output, with keys, sorted
    dead       those that died once more
    counts     the run's totals with all this
    """

    chosen: set[Key]
    keys: dict[str, list[DeadKey]]
    rows: Iterator[pa.Table]
    dead: Sequence[DeadRow]
    counts: Counts


def stage_retry(
    stage: Stage,
    layout: Layout,
    files: Files,
    manifest: Manifest,
    before: Entry,
    retried: Retried,
    writers: tuple[PartWriter, PartWriter],
    order: str,
) -> Entry:
    """Write the parts that change, and the new ones; the entry that puts them in place. Raises LedgerDamaged, OSError.

    writers: of data/ and of dead/
    """
    data, dead = standing_parts(manifest)
    writer, dead_writer = writers
    drops = _stage_dead(stage, layout, files, dead, retried, dead_writer)
    data.pop(before.placeholder, None)
    if order == "completion" or not data:
        stage.add_parts(retried.rows, writer)
        if stage.parts and before.placeholder:
            drops.append(f"data/{before.placeholder}")
    else:
        drops += _stage_data(stage, layout, files, list(data.values()), retried.rows, writer)
    stage.sync()
    return successor(
        before,
        manifest.hash_of(before.seq),
        kind="retry",
        counts=retried.counts,
        parts=tuple(stage.parts),
        dead_parts=tuple(stage.dead_parts),
        drops=tuple(drops),
        parts_total=stage.parts_total,
        dead_parts_total=before.dead_parts_total + bool(retried.dead),
        data_tail=(),
        dead_tail=(),
        part_rows_total=retried.counts.out,
        placeholder="" if stage.parts else before.placeholder,
        retries=before.retries + 1,
    )


def _stage_dead(
    stage: Stage,
    layout: Layout,
    files: Files,
    parts: dict[str, PartFact],
    retried: Retried,
    writer: PartWriter,
) -> list[str]:
    drops = []
    for name, part in parts.items():
        known = retried.keys[name]
        left = [index for index, (key, _) in enumerate(known) if key not in retried.chosen]
        if len(left) == len(known):
            continue
        if part.keys:
            drops.append(f".penstock/keys/{part.keys}")
        if left:
            rows = dead_of(layout, files, part)
            table = dead_table([DeadRow(position=0, **rows[index]) for index in left])
            stage.add_dead(table, [known[index] for index in left], writer, name)
        else:
            drops.append(f"dead/{name}")
    if retried.dead:
        keys = [DeadKey((row.origin, tuple(row.path)), row.phase) for row in retried.dead]
        stage.add_dead(dead_table(retried.dead), keys, writer)
    return drops


def _stage_data(
    stage: Stage, layout: Layout, files: Files, parts: Sequence[PartFact], rows: Iterable[pa.Table], writer: PartWriter
) -> list[str]:
    """Each new row goes into the last part that begins before it, or into the first one. Returns the names of files
    that go."""
    keys = [read_keys(layout, files, part) for part in parts]
    firsts = [known[0] for known in keys]
    incoming: dict[int, list[pa.Table]] = {}
    for table in rows:
        places = [max(0, bisect_right(firsts, key) - 1) for key in keys_of(table)]
        for place in sorted(set(places)):
            chosen = pa.array([index for index, at in enumerate(places) if at == place], pa.int64())
            incoming.setdefault(place, []).append(table.take(chosen))
    for place, tables in sorted(incoming.items()):
        part, new = parts[place], pa.concat_tables(tables)
        path = layout.data / part.name
        check_part(files, path, part)
        together = [*keys[place], *keys_of(new)]
        order = sorted(range(len(together)), key=together.__getitem__)
        write = partial(writer.write_with, part=path, table=without_keys(new), order=order)
        stage.put_part(part.name, encode_keys([together[index] for index in order]), len(together), write)
    return [f".penstock/keys/{parts[place].keys}" for place in incoming]
