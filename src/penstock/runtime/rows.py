"""The payloads of unfinished rows. The core speaks of numbers; here is what they stand for."""

from __future__ import annotations

import json
from typing import Any

from penstock.core.events import CHILD_BASE
from penstock.data.base import Row, Source, Unreadable
from penstock.ledger.base import DeadRow, Finished

_INPUT_CHARACTERS = 65_536  # of a dead row's input that are kept


class RowStore:
    """rows: row number -> its columns so far. Children know their source row and their path below it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.rows: dict[int, Row] = {}
        self._child_of: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._dead: dict[int, DeadRow] = {}

    def position(self, row: int) -> int:
        """The position of the source row that `row` comes from."""
        return row if row < CHILD_BASE else self._child_of[row][0]

    def path(self, row: int) -> tuple[int, ...]:
        return () if row < CHILD_BASE else self._child_of[row][1]

    def add(self, positions: list[int], rows: list[Row]) -> None:
        self.rows.update(zip(positions, rows, strict=True))

    def adopt(self, parent: int, first_row: int, children: list[Row]) -> None:
        """Children replace their parent."""
        position, path = self.position(parent), self.path(parent)
        for index, child in enumerate(children):
            self.rows[first_row + index] = child
            self._child_of[first_row + index] = (position, (*path, index))
        self.rows.pop(parent, None)
        self._child_of.pop(parent, None)

    def drop(self, rows: list[int]) -> None:
        """Forget rows without an output. Those with a dead record are forgotten when it is taken."""
        for row in rows:
            self.rows.pop(row, None)
            if row not in self._dead:
                self._child_of.pop(row, None)

    # ------------------------------------------------------------ what is committed

    def take_finished(self, rows: list[int]) -> list[Finished]:
        take = self.rows.pop
        if not self._child_of:
            return [Finished(row, (), take(row)) for row in rows]
        found = []
        for row in rows:
            position, path = self._child_of.pop(row, (row, ()))
            found.append(Finished(position, path, take(row)))
        return found

    def take_dead(self, rows: list[int]) -> list[DeadRow]:
        for row in rows:
            self._child_of.pop(row, None)
        return [self._dead.pop(row) for row in rows]

    # ------------------------------------------------------------ dead rows

    def bury(self, row: int, step: str, code: str, message: str, attempts: int) -> DeadRow:
        """Record why `row` died, with what it held."""
        position = self.position(row)
        source, ordinal = self._source.locate(position)
        dead = self._dead[row] = DeadRow(
            position=position,
            source=source,
            row=ordinal,
            path=list(self.path(row)),
            step=step,
            code=code,
            message=message,
            attempts=attempts,
            input=_as_json(self.rows.get(row)),
        )
        return dead

    def bury_unreadable(self, bad: Unreadable) -> DeadRow:
        dead = self._dead[bad.position] = DeadRow(
            position=bad.position,
            source=bad.source,
            row=bad.row,
            path=[],
            step="source",
            code=bad.code,
            message=bad.message,
            attempts=0,
            input=json.dumps(bad.input, ensure_ascii=False),
        )
        return dead


def _as_json(row: Row | None) -> str:
    """The row as JSON; values that JSON has no form for as text. A giant row is cut and says so, as a JSON string."""
    text = json.dumps(row, ensure_ascii=False, default=_plain)
    if len(text) > _INPUT_CHARACTERS:
        return json.dumps(text[:_INPUT_CHARACTERS] + f"... ({len(text)} characters)", ensure_ascii=False)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    return str(value)
