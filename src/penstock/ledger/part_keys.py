"""Which rows a part holds, in a small file of its own: the part itself has no column for it, and rows that are run
again later have to find their place.

A list of runs in msgpack: [position, count, [], phase] are source rows one after the other, each with one row of the
part; [position, 1, path, phase] is a child. Positions are those of the source. phase: in which dead rows died; 0 in
data/.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import pyarrow as pa

from penstock.errors import LedgerDamaged
from penstock.ledger.entry import PartFact, hash_bytes
from penstock.ledger.files import Files
from penstock.ledger.keyed import Key, keys_of, origin_column
from penstock.ledger.layout import Layout

__all__ = [
    "DeadKey",
    "encode_dead_keys",
    "encode_keys",
    "encode_keys_of",
    "join_keys",
    "read_dead_keys",
    "read_keys",
]


class DeadKey(NamedTuple):
    """A dead row. phase: -1 where it is not known (an older Penstock did not write it down)."""

    key: Key
    phase: int


class _Run(msgspec.Struct, array_like=True):
    position: int
    count: int = 1
    path: list[int] = []
    phase: int = 0


def encode_keys_of(table: pa.Table) -> bytes:
    """As `encode_keys(keys_of(...))`; where there are no children, without a Python object for each row."""
    import pyarrow.compute as pc

    first = origin_column(table)
    if not table.num_rows or pc.max(pc.list_value_length(table.column(first + 1))).as_py():
        return encode_keys(keys_of(table))
    positions = table.column(first).combine_chunks()
    breaks = pc.indices_nonzero(pc.not_equal(pc.pairwise_diff(positions), 1)).to_pylist()
    starts = [0, *breaks]
    return msgspec.msgpack.encode(
        [
            _Run(positions[start].as_py(), end - start)
            for start, end in zip(starts, [*breaks, len(positions)], strict=True)
        ]
    )


def encode_keys(keys: Iterable[Key]) -> bytes:
    return encode_dead_keys(DeadKey(key, 0) for key in keys)


def encode_dead_keys(keys: Iterable[DeadKey]) -> bytes:
    runs: list[_Run] = []
    for (position, path), phase in keys:
        last = runs[-1] if runs else None
        if path or last is None or last.path or last.position + last.count != position or last.phase != phase:
            runs.append(_Run(position, 1, list(path), phase))
        else:
            last.count += 1
    return msgspec.msgpack.encode(runs)


def read_keys(layout: Layout, files: Files, part: PartFact) -> list[Key]:
    """The keys of the rows of a part, in their order. Raises LedgerDamaged, OSError."""
    return [key for key, _ in read_dead_keys(layout, files, part)]


def read_dead_keys(layout: Layout, files: Files, part: PartFact) -> list[DeadKey]:
    """The same of a part of dead/, which has keys. Raises LedgerDamaged, OSError."""
    return [
        DeadKey((run.position + index, tuple(run.path)), run.phase)
        for run in _read_runs(layout, files, part)
        for index in range(run.count)
    ]


def join_keys(layout: Layout, files: Files, parts: Sequence[PartFact]) -> bytes:
    """The keys of parts that become one, encoded. Raises LedgerDamaged, OSError."""
    return msgspec.msgpack.encode([run for part in parts for run in _read_runs(layout, files, part)])


def _read_runs(layout: Layout, files: Files, part: PartFact) -> list[_Run]:
    path, what = layout.keys / part.keys, f"this file, which lists the rows of {part.name},"
    try:
        data = files.read(path)
        if part.keys_hash and hash_bytes(data) != part.keys_hash:
            raise LedgerDamaged(f"{what} was modified after it was written. Restore it from a copy.", where=str(path))
        runs = msgspec.msgpack.decode(data, type=list[_Run])
    except FileNotFoundError as error:
        raise LedgerDamaged(f"{what} is missing. Restore it from a copy.", where=str(path)) from error
    except msgspec.MsgspecError as error:
        raise LedgerDamaged(f"{what} can't be read: {error}", where=str(path)) from error
    listed = sum(run.count for run in runs)
    if listed != part.rows:
        raise LedgerDamaged(f"{part.name} has {part.rows} rows, but this file lists {listed}", where=str(path))
    return runs
