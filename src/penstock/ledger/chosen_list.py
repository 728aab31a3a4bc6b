"""The list of the rows of a retry, written before any of them is run: `.penstock/retry-0001.json`.

    {"format": 2, "codes": ["refused"], "rows": [[position, path, step, phase], ...]}

Lists of an older Penstock are arrays of [source, row, path, step, position], without the codes.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import msgspec

from penstock.errors import LedgerDamaged
from penstock.ledger.dead_rows import DeadRows, Place
from penstock.ledger.files import Files
from penstock.ledger.keyed import Key
from penstock.ledger.layout import Layout
from penstock.ledger.owner import read_owner, refuse_if_owned

__all__ = ["Chosen", "ChosenList", "Settled"]

FORMAT = 2


class Chosen(msgspec.Struct, frozen=True, array_like=True):
    """A dead row that is run again. position: of its source row in the source; step, phase: where it died, phase -1
    where that is not known."""

    position: int
    path: tuple[int, ...]
    step: str
    phase: int = -1

    @property
    def key(self) -> Key:
        return self.position, self.path


class Settled(NamedTuple):
    """codes: sorted, [] for all; None where they are not known. rows: what is run again."""

    codes: list[str] | None
    rows: list[Chosen]


class _Content(msgspec.Struct):
    format: int
    codes: list[str]
    rows: list[Chosen]


class _NamedRow(msgspec.Struct, array_like=True):
    """A row in a list of format 1."""

    source: str
    row: int
    path: tuple[int, ...]
    step: str
    position: int


class ChosenList:
    """The list of the retry whose own run is in the folder `inner`."""

    def __init__(self, layout: Layout, files: Files, inner: Path) -> None:
        self._layout, self._files, self._inner = layout, files, inner
        self._path = inner.with_suffix(".json")
        self._places: dict[Place, list[int]] = {}

    def read(self, dead: Callable[[], DeadRows], *, takeover: bool) -> Settled | None:
        """What was settled when the retry was begun; None where none was. dead: the dead rows of the run, for a list of
        an older Penstock. Raises LedgerDamaged; RunOwned where such a list is wrong and its retry is at work."""
        try:
            data = self._files.read(self._path)
        except FileNotFoundError:
            return None
        try:
            if data.startswith(b"["):
                return self._of_older(msgspec.json.decode(data, type=list[_NamedRow]), dead(), takeover=takeover)
            content = msgspec.json.decode(data, type=_Content)
        except msgspec.MsgspecError as error:
            raise self._damaged(f"can't be read: {error}") from error
        if content.format != FORMAT:
            raise self._damaged(f"has format {content.format}; this Penstock knows format {FORMAT}")
        return Settled(content.codes, content.rows)

    def settle(
        self, codes: Collection[str], rows: list[Chosen], dead: Callable[[], DeadRows], *, takeover: bool
    ) -> Settled:
        """Write the list, unless another process was quicker; returns the one that stands. Nothing is written for no
        row. dead, takeover: as for `read`"""
        settled = Settled(sorted(set(codes)), rows)
        if not rows:
            return settled
        staged = self._layout.private / f"chosen-{secrets.token_hex(8)}.json"  # not in staging/, which others may sweep
        self._files.write(staged, msgspec.json.encode(_Content(FORMAT, settled.codes or [], rows)))
        try:
            self._files.link(staged, self._path)
        except FileExistsError:
            settled = self.read(dead, takeover=takeover) or settled
        self._files.sync_folder(self._path.parent)
        self._files.unlink(staged)
        return settled

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def places(self, wanted: set[Place]) -> dict[Place, list[int]]:
        """The positions of rows of a list of an older Penstock, by name."""
        return {place: self._places.get(place, []) for place in wanted}

    def _of_older(self, named: list[_NamedRow], dead: DeadRows, *, takeover: bool) -> Settled | None:
        """That of an older Penstock, which took a name for one row. Where it stands for several the list is wrong: it
        goes, with what has come of it, and another is made."""
        keys: dict[tuple[str, int, tuple[int, ...]], list[Key]] = {}
        for (key, _), row in dead.rows:
            keys.setdefault((row["source"], row["row"], tuple(row["path"])), []).append(key)
        if any(keys.get((one.source, one.row, one.path)) != [(one.position, one.path)] for one in named):
            if not takeover:
                refuse_if_owned(read_owner(self._files, Layout(self._inner).owner), self._layout.out_dir, time.time())
            shutil.rmtree(self._inner, ignore_errors=True)
            self.remove()
            return None
        self._places = {(one.source, one.row): [one.position] for one in named}
        return Settled(None, [Chosen(one.position, one.path, one.step) for one in named])

    def _damaged(self, what: str) -> LedgerDamaged:
        return LedgerDamaged(f"the list of rows to run again {what}", where=str(self._path))
