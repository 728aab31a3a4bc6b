"""The data of unfinished rows. The core has only their numbers."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec

from penstock.core.events import CHILD_BASE
from penstock.data.base import Chunk, Origin, Row, RowFamily, Source, Unreadable
from penstock.ledger.base import DeadRow, Finished
from penstock.protocol.arrays import Array
from penstock.runtime.rows.views import BranchViews

_INPUT_CHARACTERS = 65_536  # of a dead row's input that are kept


class RowStore:
    """rows: row number -> its columns so far. Children know the row of the source that they come from, and their path.

    Positions are those of `source`, which in a later phase is what the phase before has carried over; `origin` leads
    back to the first source.
    """

    def __init__(self, source: Source, views: BranchViews | None = None) -> None:
        self._source = source
        self.views = views
        self._ending: set[int] = set()  # in branches: rows that have ended early, until they are dropped
        self._origins: dict[int, Origin] = {}  # by position, of rows that were carried over
        self._families: dict[int, RowFamily] = {}  # by position, until their rows have numbers
        self.rows: dict[int, Row] = {}
        self._child_of: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._dead: dict[int, DeadRow] = {}

    def place(self, row: int) -> tuple[int, tuple[int, ...]]:
        """The position that `row` comes from in this phase, and its path: below it, or, where several rows were read
        there, from the source row on."""
        return (row, ()) if row < CHILD_BASE else self._child_of[row]

    def origin(self, row: int) -> Origin:
        """Where `row` comes from, in the first source."""
        position, path = self.place(row)
        found = self._origins.get(position)
        if found is None:
            return Origin(position, path, *self._source.locate(position))
        return msgspec.structs.replace(found, path=(*found.path, *path)) if path else found

    def source_place(self, row: int) -> tuple[int, tuple[int, ...]]:
        """The position in the first source, and the path below it: what is the same however phases are cut."""
        position, path = self.place(row)
        found = self._origins.get(position)
        return (position, path) if found is None else (found.position, (*found.path, *path))

    def add(self, chunk: Chunk) -> None:
        self.rows.update(zip(chunk.positions, chunk.rows, strict=True))
        if chunk.origins is not None:
            self._origins.update(zip(chunk.positions, chunk.origins, strict=True))
        for family in chunk.families:
            self._families[family.position] = family

    def adopt_family(self, position: int, first_row: int) -> None:
        """What was read of one source row: its paths are known from the phase before."""
        family = self._families.pop(position)
        self._origins[position] = msgspec.structs.replace(family.origins[0], path=())
        for row, (content, origin) in enumerate(zip(family.rows, family.origins, strict=True), first_row):
            self.rows[row] = content
            self._child_of[row] = (position, origin.path)

    def adopt(self, parent: int, first_row: int, children: list[tuple[int, Row]]) -> None:
        """Children, each with its index among all that there are, replace their parent."""
        position, path = self.place(parent)
        for row, (index, child) in enumerate(children, first_row):
            self.rows[row] = child
            self._child_of[row] = (position, (*path, index))
        self.rows.pop(parent, None)
        self._child_of.pop(parent, None)
        if self.views is not None:
            self.views.drop(parent)

    def before(self, row: int, step: int) -> Row:
        """The row as `step` gets it: in branches each sees its own columns."""
        return self.rows[row] if self.views is None else self.views.before(self.rows[row], row, step)

    def put(self, row: int, step: int, content: Row) -> None:
        """The row leaves `step` with this content."""
        if self.views is None:
            self.rows[row] = content
        elif row in self.rows:
            self.views.put(row, step, content)

    def end_early(self, row: int) -> bool:
        """Whether the row ends here. Not where another branch has ended it already, and that is just being settled: it
        ends once, and has one dead record at most."""
        if self.views is None:
            return True
        if row in self._ending or row not in self.rows:
            return False
        self._ending.add(row)
        return True

    def drop(self, rows: list[int]) -> None:
        """Forget rows without an output. Those with a dead record are forgotten when it is taken."""
        for row in rows:
            self.rows.pop(row, None)
            if self.views is not None:
                self.views.drop(row)
                self._ending.discard(row)
            if row not in self._dead:
                self._child_of.pop(row, None)

    # ------------------------------------------------------------ what is committed

    def take_finished(self, rows: list[int]) -> list[Finished]:
        take = self.rows.pop if self.views is None else self._take_joined
        if not self._child_of and not self._origins:
            return [Finished(row, (), take(row)) for row in rows]
        found = []
        for row in rows:
            position = self.place(row)[0]
            origin = self.origin(row) if position in self._origins else None  # else the row is its own
            position, path = self._child_of.pop(row, (row, ()))
            found.append(Finished(position, path, take(row), origin))
        return found

    def _take_joined(self, row: int) -> Row:
        assert self.views is not None
        return self.views.finished(self.rows.pop(row), row)

    def take_dead(self, rows: list[int]) -> list[DeadRow]:
        for row in rows:
            self._child_of.pop(row, None)
        return [self._dead.pop(row) for row in rows]

    def forget(self, ended: list[int]) -> None:
        """These positions have ended, with all that is below them."""
        if self._origins:
            for position in ended:
                self._origins.pop(position, None)

    # ------------------------------------------------------------ dead rows

    def record_dead(
        self, row: int, step: str, code: str, message: str, attempts: int, held: Row | None = None
    ) -> DeadRow:
        """Record why `row` died, with what it held (default: its one state)."""
        origin = self.origin(row)
        dead = self._dead[row] = DeadRow(
            position=self.place(row)[0],
            source=origin.source,
            row=origin.row,
            path=list(origin.path),
            step=step,
            code=code,
            message=message,
            attempts=attempts,
            input=_as_json(self.rows.get(row) if held is None else held),
            origin=origin.position,
        )
        return dead

    def record_unreadable(self, bad: Unreadable) -> DeadRow:
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
            origin=bad.origin,
        )
        return dead


def _as_json(row: Row | None) -> str:
    """The row as JSON; values that JSON has no form for as text. A giant row is cut and says so, as a JSON string."""
    text = json.dumps(row, ensure_ascii=False, default=_plain)
    if len(text) > _INPUT_CHARACTERS:
        return json.dumps(text[:_INPUT_CHARACTERS] + f"... ({len(text)} characters)", ensure_ascii=False)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, Array):
        return {"dtype": value.dtype, "shape": value.shape, "base64": base64.b64encode(value.data).decode()}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    return str(value)
