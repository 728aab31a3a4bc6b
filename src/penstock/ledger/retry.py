"""A retry, seen from the run whose dead rows it runs again: which rows, and what their run has made of them.

    dead/ ──▶ Retry.chosen ──▶ a run of its own in Retry.folder, over their source rows only ──▶ Ledger.put_back

Nothing of this run changes before `put_back` makes its entry: until then its dead rows are dead.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import pyarrow as pa

from penstock.core.counts import Counts
from penstock.data.base import Source
from penstock.ledger.base import DeadRow
from penstock.ledger.chosen_list import Chosen, ChosenList
from penstock.ledger.dead_rows import DeadRows, positions_of, read_dead
from penstock.ledger.entry import Entry
from penstock.ledger.files import Files
from penstock.ledger.keyed import Key, keys_of, with_keys, without_keys
from penstock.ledger.layout import Layout
from penstock.ledger.manifest import Manifest
from penstock.ledger.retry_parts import Retried
from penstock.ledger.run_file import read_run_file
from penstock.ledger.segments import decode_schema, read_segment

__all__ = ["Chosen", "Key", "Retry"]

_NAMING = ["source", "row", "path", "step", "code"]  # columns of dead/ without the rows themselves


class Retry:
    """The dead rows of a run that one retry runs again, settled when it was begun; `Ledger.retry` makes it.

    chosen   the rows, with where they died
    codes    of the rows that were asked for when it was begun, sorted, [] for all; None where they are not known
    folder   of the run over them, with a ledger of its own
    columns  of the output, as this run has fixed them; None where it has not
    mark     what this run has read of the source
    """

    def __init__(
        self,
        layout: Layout,
        files: Files,
        before: Entry,
        source: Source,
        codes: Collection[str],
        *,
        without: Collection[Key],
        takeover: bool,
    ) -> None:
        self._layout, self._files = layout, files
        self.number = before.retries + 1
        self.folder = layout.retry(self.number)
        self._list = ChosenList(layout, files, self.folder)
        for number in range(1, self.number):  # one that was killed after its entry has left its folder
            _remove(layout.retry(number), ChosenList(layout, files, layout.retry(number)))
        dead = partial(self._dead, source)
        settled = self._list.read(dead, takeover=takeover)
        if settled is None:
            rows = [
                Chosen(*key, row["step"], phase)
                for (key, phase), row in dead().rows
                if key not in without and (not codes or row["code"] in codes)
            ]
            settled = self._list.settle(codes, rows, dead, takeover=takeover)
        self.codes, self.chosen = settled
        text = before.schema or before.data_schema
        self.columns = decode_schema(text, str(layout.entry(before.seq))) if text else None
        self.mark = before.mark

    def has_ended(self) -> bool:
        """Whether all of them have been run: the last phase of that run never begins."""
        inner = Layout(self.folder)
        run, newest = read_run_file(inner, self._files), self._newest()
        return run is not None and newest is not None and newest.phase == run.phases - 1

    def counts(self) -> Counts:
        """What running them has counted, once that has ended. Its finished rows are output."""
        newest = self._newest()
        assert newest is not None
        sources = len({one.position for one in self.chosen})
        out = sum(fact.rows for fact in newest.inputs)
        return msgspec.structs.replace(newest.counts, rows_in=sources, out=out, ended_sources=sources)

    def outcome(self, before: Entry, source: Source, counted: Counts) -> Retried:
        """For the entry after `before`. counted: what this run has counted for the chosen rows."""
        newest, inner = self._newest(), Layout(self.folder)
        assert newest is not None
        died = [
            DeadRow(position=key[0], origin=key[0], phase=phase, **row)
            for (key, phase), row in read_dead(inner, self._files, None, self._list.places).rows
        ]
        chosen, keys = {one.key for one in self.chosen}, self._dead(source).by_part
        left = {one.key[0] for part in keys.values() for one in part if one.key not in chosen}
        counts = msgspec.structs.replace(
            before.counts - counted + self.counts(), dead_sources=len(left | {row.origin for row in died})
        )
        return Retried(chosen, keys, self._rows(inner, newest), died, counts)

    def remove(self) -> None:
        """It is done, and stands in the run."""
        _remove(self.folder, self._list)

    def _newest(self) -> Entry | None:
        return Manifest(Layout(self.folder), self._files).newest()

    def _dead(self, source: Source) -> DeadRows:
        return read_dead(self._layout, self._files, _NAMING, partial(positions_of, source))

    def _rows(self, inner: Layout, newest: Entry) -> Iterator[pa.Table]:
        """The output, under the keys of this run."""
        for fact in newest.inputs:
            for table in read_segment(inner, self._files, fact):
                yield with_keys(keys_of(table), without_keys(table))


def _remove(folder: Path, chosen: ChosenList) -> None:
    """What resists is garbage."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        chosen.remove()
