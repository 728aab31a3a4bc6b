"""Tables of rows with their keys in front: column 0 is the position (int64), column 1 the path (list<int64>).

The key columns are addressed by index, so that a user's column may have any name. Keys order rows as tuples do:
by position, then by path.

Where positions are of a later phase, or rows go to one, five more columns follow: each row's origin (base.Origin). In a
table without them the keys are the origins. They are known by their names and by allowing no nulls, which columns of a
run do.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import eq

import pyarrow as pa

from penstock.ledger.base import Origin

__all__ = [
    "KEY_COLUMNS",
    "Key",
    "count_below",
    "count_positions",
    "count_up_to",
    "key_at",
    "keys_of",
    "merge",
    "origin_column",
    "origins_of",
    "with_keys",
    "without_keys",
]

Key = tuple[int, tuple[int, ...]]

KEY_COLUMNS = 2
_POSITION = pa.field("position", pa.int64(), nullable=False)
_PATH = pa.field("path", pa.list_(pa.int64()), nullable=False)
_ORIGIN = (
    pa.field("origin_position", pa.int64(), nullable=False),
    pa.field("origin_path", pa.list_(pa.int64()), nullable=False),
    pa.field("origin_source", pa.string(), nullable=False),
    pa.field("origin_row", pa.int64(), nullable=False),
    pa.field("origin_lost", pa.bool_(), nullable=False),
)


def with_keys(keys: Sequence[Key], table: pa.Table, origins: Sequence[Origin] | None = None) -> pa.Table:
    """`table` with the keys of its rows in front, and their origins where these are not the keys."""
    front = [_POSITION, _PATH]
    columns = [
        pa.array([position for position, _ in keys], pa.int64()),
        pa.array([path for _, path in keys], pa.list_(pa.int64())),
    ]
    if origins is not None:
        front += _ORIGIN
        columns += [
            pa.array([origin.position for origin in origins], pa.int64()),
            pa.array([origin.path for origin in origins], pa.list_(pa.int64())),
            pa.array([origin.source for origin in origins], pa.string()),
            pa.array([origin.row for origin in origins], pa.int64()),
            pa.array([origin.source_dead for origin in origins], pa.bool_()),
        ]
    schema = pa.schema([*front, *table.schema], metadata=table.schema.metadata)
    return pa.Table.from_arrays([*columns, *table.columns], schema=schema)


def without_keys(table: pa.Table) -> pa.Table:
    return table.select(range(KEY_COLUMNS + (len(_ORIGIN) if origin_column(table) else 0), table.num_columns))


def origin_column(table: pa.Table) -> int:
    """Where the source positions stand; the paths below them stand in the next column."""
    after = KEY_COLUMNS + len(_ORIGIN)
    has_origins = table.num_columns >= after and all(map(eq, map(table.field, range(KEY_COLUMNS, after)), _ORIGIN))
    return KEY_COLUMNS if has_origins else 0


def keys_of(table: pa.Table) -> list[Key]:
    """The keys of the rows in the source: what is the same however phases are cut."""
    first = origin_column(table)
    positions, paths = table.column(first).to_pylist(), table.column(first + 1).to_pylist()
    return list(zip(positions, map(tuple, paths), strict=True))


def origins_of(table: pa.Table) -> list[Origin]:
    columns = [table.column(KEY_COLUMNS + index).to_pylist() for index in range(len(_ORIGIN))]
    return [Origin(position, tuple(path), *rest) for position, path, *rest in zip(*columns, strict=True)]


def key_at(table: pa.Table, index: int) -> Key:
    return table.column(0)[index].as_py(), tuple(table.column(1)[index].as_py())


def count_below(table: pa.Table, position: int) -> int:
    """How many leading rows of a sorted table have a lower position."""
    import pyarrow.compute as pc  # slow to import, and no run needs it before its first commit

    return int(pc.sum(pc.less(table.column(0), position)).as_py() or 0)


def count_positions(table: pa.Table) -> int:
    """How many different positions the rows of a table have."""
    import pyarrow.compute as pc

    return int(pc.count_distinct(table.column(0)).as_py())


def count_up_to(table: pa.Table, key: Key) -> int:
    """How many leading rows of a sorted table have at most this key."""
    position, path = key
    start = count_below(table, position)
    stop = count_below(table, position + 1)
    if start == stop:
        return stop
    paths = [tuple(item) for item in table.column(1).slice(start, stop - start).to_pylist()]
    return start + bisect_right(paths, path)


def merge(streams: Sequence[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """One sorted stream from several, each of sorted tables. Holds one table of each stream in memory.

    In each round everything up to the smallest of the last loaded keys is complete in memory, and can go out.
    """
    heads = [_Head(stream) for stream in streams]
    while True:
        heads = [head for head in heads if head.load()]
        if not heads:
            return
        if len(heads) == 1:
            yield heads[0].take_all()
            continue
        boundary = min(head.last_key for head in heads)
        pieces = [piece for piece in (head.take_up_to(boundary) for head in heads) if piece.num_rows]
        yield pieces[0] if len(pieces) == 1 else _sorted(pa.concat_tables(pieces))


class _Head:
    """What is loaded of one stream."""

    def __init__(self, stream: Iterator[pa.Table]) -> None:
        self._stream = stream
        self._table: pa.Table | None = None
        self.last_key: Key = (-1, ())

    def load(self) -> bool:
        """Make sure that rows are loaded; False at the end of the stream."""
        while self._table is None or self._table.num_rows == 0:
            self._table = next(self._stream, None)
            if self._table is None:
                return False
            if self._table.num_rows:
                self.last_key = key_at(self._table, self._table.num_rows - 1)
        return True

    def take_all(self) -> pa.Table:
        table, self._table = self._table, None
        return table

    def take_up_to(self, key: Key) -> pa.Table:
        table = self._table
        assert table is not None
        count = count_up_to(table, key)
        self._table = table.slice(count)
        return table.slice(0, count)


def _sorted(table: pa.Table) -> pa.Table:
    """`table` in key order. Paths are rare: without any, Arrow sorts by itself."""
    import pyarrow.compute as pc

    if pc.max(pc.list_value_length(table.column(1))).as_py() == 0:
        return table.take(pc.sort_indices(table.column(0)))
    keys = list(zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return table.take(pa.array(order, pa.int64()))
