"""The dead rows of a run, identified by their keys: (position in the source, path). A source may name a file twice, and
then the columns of dead/ (source, row, path) stand for several rows.

Runs of an older Penstock have parts of dead/ without keys. Their rows are found by name, where that is possible.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from penstock.data.base import Source
from penstock.errors import InputError, UsageError
from penstock.ledger.entry import PartFact
from penstock.ledger.files import Files
from penstock.ledger.keyed import Key
from penstock.ledger.layout import Layout
from penstock.ledger.manifest import Manifest
from penstock.ledger.part_keys import DeadKey, read_dead_keys
from penstock.ledger.segments import check_part

__all__ = ["DeadRows", "Place", "dead_of", "positions_of", "read_dead", "standing_parts"]

Place = tuple[str, int]  # (file, ordinal in it)
_SCAN_ROWS = 65_536


class DeadRows(NamedTuple):
    """rows: with the columns that were asked for; by_part: the keys of the rows of each part of dead/, in order."""

    rows: list[tuple[DeadKey, dict[str, Any]]]
    by_part: dict[str, list[DeadKey]]


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
        # In this thread: those of Arrow, as `read_table` has them, may hold the file until the interpreter ends.
        batches = pq.ParquetFile(file).iter_batches(columns=columns, use_threads=False)
        return [row for batch in batches for row in batch.to_pylist()]


def read_dead(
    layout: Layout,
    files: Files,
    columns: list[str] | None,
    find: Callable[[set[Place]], dict[Place, list[int]]],
) -> DeadRows:
    """The dead rows of the run in `layout`. columns: of them, with source, row and path; None: all.

    find: the positions of places, for parts without keys; not called where there are none

    Raises LedgerDamaged; UsageError where a row without a key can't be distinguished from another; what `find` raises.
    """
    _, parts = standing_parts(Manifest(layout, files))
    rows = {name: dead_of(layout, files, part, columns) for name, part in parts.items()}
    keys = {name: read_dead_keys(layout, files, part) for name, part in parts.items() if part.keys}
    unkeyed = {name: rows[name] for name in parts if name not in keys}
    if unkeyed:
        keys |= _by_name(unkeyed, {key for known in keys.values() for key, _ in known}, find, str(layout.dead))
    by_part = {name: keys[name] for name in parts}
    return DeadRows([pair for name in parts for pair in zip(by_part[name], rows[name], strict=True)], by_part)


def _by_name(
    parts: dict[str, list[dict[str, Any]]],
    taken: set[Key],
    find: Callable[[set[Place]], dict[Place, list[int]]],
    where: str,
) -> dict[str, list[DeadKey]]:
    """The keys of rows that have none. taken: keys of other dead rows.

    Several rows of one name have as many places in the source, each with the same content: which is which does not
    matter. Where a name has more places than dead rows, it is unknown in which of them a row died.
    """
    found = find({(row["source"], row["row"]) for rows in parts.values() for row in rows})
    names: dict[tuple[str, int, tuple[int, ...]], int] = defaultdict(int)
    for rows in parts.values():
        for row in rows:
            names[row["source"], row["row"], tuple(row["path"])] += 1
    free: dict[tuple[str, int, tuple[int, ...]], Iterator[int]] = {}
    for (source, ordinal, path), died in names.items():
        places = [position for position in found[source, ordinal] if (position, path) not in taken]
        if len(places) != died:
            raise UsageError(
                f"the source lists {source} {len(found[source, ordinal])} times, and its row {ordinal} is dead in "
                f"{died} of these places. The older version of Penstock that wrote this run did not record which, "
                "so these dead rows can't be retried. Run the pipeline into a new folder with "
                "`penstock run PIPELINE --out DIR`.",
                where=where,
            )
        free[source, ordinal, path] = iter(places)
    return {
        name: [
            DeadKey((next(free[row["source"], row["row"], tuple(row["path"])]), tuple(row["path"])), -1) for row in rows
        ]
        for name, rows in parts.items()
    }


def positions_of(source: Source, places: set[Place]) -> dict[Place, list[int]]:
    """All positions of rows that are known as (file, ordinal in it), ascending: more than one where the source names
    the file several times. Goes through the whole source, without parsing. Raises InputError where it has no such row.
    """
    wanted: dict[str, list[int]] = {}
    for name, row in sorted(places):
        wanted.setdefault(name, []).append(row)
    found: dict[Place, list[int]] = {}
    at = 0
    while (chunk := source.read(at, lambda position: True, _SCAN_ROWS)) is not None:
        for name, row, begin, end in _ranges(source, at, chunk.next_position):
            rows = wanted.get(name, [])
            for one in rows[bisect_left(rows, row) : bisect_left(rows, row + end - begin)]:
                found.setdefault((name, one), []).append(begin + one - row)
        at = chunk.next_position
    missing = sorted(places - found.keys())
    if missing:
        raise InputError(
            f"the source has no row {missing[0][1]} in {missing[0][0]}; it had that row when the run was started"
        )
    return found


def _ranges(source: Source, begin: int, end: int) -> Iterator[tuple[str, int, int, int]]:
    """(file, ordinal in it, first position, position after the last) of the files that lie between two positions.
    Within a file ordinals go with positions, so only its bounds are looked up."""
    while begin < end:
        name, row = source.locate(begin)
        low, high = begin, end
        while high - low > 1:  # the last position of this file; a file after itself begins again at 0
            middle = (low + high) // 2
            low, high = (middle, high) if source.locate(middle) == (name, row + middle - begin) else (low, middle)
        yield name, row, begin, high
        begin = high
