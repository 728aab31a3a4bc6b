"""From a batch of rows to what is written: checks, keys, one table, and the rows that no column can hold."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from operator import attrgetter, eq
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from penstock.core.counts import Counts, rejection
from penstock.errors import InvariantError
from penstock.ledger.base import CommitBatch, DeadRow, Finished, Origin, Row
from penstock.ledger.keyed import Key, with_keys

__all__ = ["SINK_STEP", "Encoded", "Locate", "TableMaker", "check_batch", "encode_batch", "moved_by"]

# The `step` of a row that died when it was to be written.
SINK_STEP = "sink"
_key = attrgetter("position", "path")
Locate = Callable[[int], tuple[str, int]]


class TableMaker(Protocol):
    """Makes tables of one schema from rows (penstock.data.columns)."""

    def build(self, rows: Sequence[Row]) -> tuple[pa.Table, list[tuple[int, str, str]]]:
        """The rows as a table, without those it rejects: (index, column, message) each."""
        ...

    def fixed_schema(self) -> pa.Schema | None:
        """The schema of every table from now on; None while it is not fixed."""
        ...


class Encoded(msgspec.Struct):
    """`table`: the accepted rows with keys, sorted. `rejected`: the others, as dead rows."""

    table: pa.Table
    rejected: list[DeadRow]


def check_batch(batch: CommitBatch, order: str) -> None:
    """See that a source row and all that descends from it become durable together, and that publishing holds back.

    Raises InvariantError.
    """
    ended = set(batch.ended)
    positions = {item.position for item in batch.finished} | {item.position for item in batch.dead}
    if not positions <= ended:
        raise InvariantError(
            f"rows of source row {min(positions - ended)} were committed although it has not ended in the same batch; "
            "a resume would make them a second time"
        )
    if order == "input" and batch.publish_to is not None and batch.publish_to > batch.watermark:
        raise InvariantError(f"asked to publish up to {batch.publish_to}, but the watermark is {batch.watermark}")


def encode_batch(
    builder: TableMaker,
    finished: Sequence[Finished],
    dead: Sequence[DeadRow],
    locate: Locate,
    *,
    carries: bool,
) -> Encoded:
    """Sort by key, build one table, set apart what it can't hold. carries: the rows go to a next phase, with their
    origins, which tell whether rows of their source rows have died, as those of `dead` did."""
    items = sorted(finished, key=_key)
    keys: list[Key] = list(map(_key, items))
    for key in itertools.compress(keys, map(eq, keys, keys[1:])):
        raise InvariantError(f"row {key} is twice in one batch")
    table, refusals = builder.build([item.row for item in items])
    reasons: dict[int, list[str]] = defaultdict(list)
    for index, column, message in refusals:
        reasons[index].append(f"column {column!r}: {message}")
    rejected = [_dead(items[index], "; ".join(reasons[index]), locate) for index in sorted(reasons)]
    if reasons:
        keys = [key for index, key in enumerate(keys) if index not in reasons]
        items = [item for index, item in enumerate(items) if index not in reasons]
    if table.num_rows != len(keys):
        raise InvariantError(f"{len(keys)} rows were to be written, but their table has {table.num_rows}")
    if not carries and all(item.origin is None for item in items):
        return Encoded(with_keys(keys, table), rejected)
    origins = [origin_of(item, locate) for item in items]
    lost = {row.position for row in (*dead, *rejected)}
    origins = [
        msgspec.structs.replace(origin, source_dead=True) if position in lost else origin
        for (position, _), origin in zip(keys, origins, strict=True)
    ]
    return Encoded(with_keys(keys, table, origins), rejected)


def moved_by(batch: CommitBatch, rejected: Sequence[DeadRow], *, carries: bool) -> Counts:
    """What changes in the batch's totals with `rejected`. carries: its finished rows go to a next phase."""
    dead = {row.position for row in batch.dead}
    dead.update(item.position for item in batch.finished if item.origin is not None and item.origin.source_dead)
    finished = (item.position for item in batch.finished)
    return rejection([row.position for row in rejected], finished, dead, carries=carries)


def origin_of(item: Finished, locate: Locate) -> Origin:
    """Where a row comes from; a row of the first phase is its own origin."""
    return item.origin or Origin(item.position, item.path, *locate(item.position))


def _dead(item: Finished, message: str, locate: Locate) -> DeadRow:
    origin = origin_of(item, locate)
    return DeadRow(
        position=item.position,
        source=origin.source,
        row=origin.row,
        path=list(origin.path),
        step=SINK_STEP,
        code="encode_error",
        message=message,
        attempts=1,
        input=_as_json(item.row),
        origin=origin.position,
    )


def _as_json(row: Row) -> str:
    """The row for people to look at; what JSON has no form for is shown as Python does."""
    try:
        return msgspec.json.encode(_plain_keys(row), enc_hook=repr).decode("utf-8")
    except (TypeError, ValueError, RecursionError, OverflowError):
        return msgspec.json.encode({str(name): repr(value)[:1000] for name, value in row.items()}).decode("utf-8")


def _plain_keys(row: Row) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}
