"""Rows that died, were run again, and take their places: in the output, or among the dead with a new reason.

    dead/ ── chosen ──▶ a run of its own, over their source rows only ──▶ one entry `retry` of this run:
                                                                          parts with the new rows in their places,
                                                                          dead/ without the chosen, with those that died

Nothing of this run changes before that entry, and everything with it: until then its dead rows are dead.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa

from penstock.core.counts import Counts
from penstock.data.base import PartWriter
from penstock.data.dead import dead_table
from penstock.ledger.base import DeadRow
from penstock.ledger.entry import Entry, PartFact
from penstock.ledger.files import Files
from penstock.ledger.keyed import Key, keys_of, with_keys, without_keys
from penstock.ledger.layout import Layout
from penstock.ledger.manifest import Manifest
from penstock.ledger.part_keys import DeadKey, encode_keys, read_keys
from penstock.ledger.segments import check_part, read_segment
from penstock.ledger.stage import Stage

__all__ = ["Again", "dead_of", "retried_rows", "stage_retry", "standing_parts"]


class Again(msgspec.Struct):
    """What became of dead rows that were run again. chosen: their keys, which leave the dead-letter table; known: the
    keys of the rows of each part of it; rows: their output, with keys, sorted; dead: those that died once more; counts:
    the run's totals with all this."""

    chosen: set[Key]
    known: dict[str, list[DeadKey]]
    rows: Iterator[pa.Table]
    dead: Sequence[DeadRow]
    counts: Counts


def retried_rows(layout: Layout, files: Files, entry: Entry) -> Iterator[pa.Table]:
    """The output of a run over chosen rows, from its newest entry: under the keys of the run that they belong to."""
    for fact in entry.inputs:
        for table in read_segment(layout, files, fact):
            yield with_keys(keys_of(table), without_keys(table))


def standing_parts(manifest: Manifest) -> tuple[dict[str, PartFact], dict[str, PartFact]]:
    """The parts of data/ and dead/ by name, as the entries have left them. Raises LedgerDamaged."""
    data: dict[str, PartFact] = {}
    dead: dict[str, PartFact] = {}
    for entry in manifest.replay():
        for standing, parts in ((data, entry.parts), (dead, entry.dead_parts)):
            standing.update((part.name, part) for part in parts)
        for name in entry.drops:
            folder, _, part = name.rpartition("/")
            {"data": data, "dead": dead}.get(folder, {}).pop(part, None)
    return dict(sorted(data.items())), dict(sorted(dead.items()))


def dead_of(layout: Layout, files: Files, part: PartFact, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """The dead rows of a part of dead/, as dicts of its columns, or of some. Raises LedgerDamaged where the part is
    gone or not as it was written."""
    import pyarrow.parquet as pq

    path = layout.dead / part.name
    check_part(files, path, part)
    with files.open(path) as file:  # a path of Arrow has to be UTF-8
        rows: list[dict[str, Any]] = pq.read_table(file, columns=columns, use_threads=False).to_pylist()
    return rows


def stage_retry(
    stage: Stage,
    layout: Layout,
    files: Files,
    manifest: Manifest,
    before: Entry,
    again: Again,
    writers: tuple[PartWriter, PartWriter],
    *,
    order: str,
) -> list[str]:
    """Write the parts that change, and the new ones; returns the names of files that go. Raises LedgerDamaged, OSError.

    writers: of data/ and of dead/
    """
    data, dead = standing_parts(manifest)
    writer, dead_writer = writers
    drops = _stage_dead(stage, layout, files, dead, again, dead_writer)
    data.pop(before.placeholder, None)
    if order == "completion" or not data:
        stage.add_parts(again.rows, writer)
        if stage.parts and before.placeholder:
            drops.append(f"data/{before.placeholder}")
    else:
        drops += _stage_data(stage, layout, files, list(data.values()), again.rows, writer)
    stage.sync()
    return drops


def _stage_dead(
    stage: Stage,
    layout: Layout,
    files: Files,
    parts: dict[str, PartFact],
    again: Again,
    writer: PartWriter,
) -> list[str]:
    drops = []
    for name, part in parts.items():
        known = again.known[name]
        left = [index for index, (key, _) in enumerate(known) if key not in again.chosen]
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
    if again.dead:
        keys = [DeadKey((row.origin, tuple(row.path)), row.phase) for row in again.dead]
        stage.add_dead(dead_table(again.dead), keys, writer)
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
