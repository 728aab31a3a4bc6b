"""Dead rows of an older Penstock, whose parts had no keys, are found by name where that is possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.data.dead import dead_table
from penstock.data.parts import writer_for
from penstock.errors import UsageError
from penstock.ledger.base import DeadRow
from penstock.ledger.dead_rows import DeadRows, read_dead
from penstock.ledger.entry import Entry, PartFact, hash_bytes
from penstock.ledger.files import Files
from penstock.ledger.layout import Layout
from penstock.ledger.manifest import Manifest
from penstock.ledger.part_keys import DeadKey, encode_dead_keys

PLACES = {("a", 0): [0, 4], ("a", 1): [1, 5], ("b", 0): [2]}


def dead(source: str, row: int, path: tuple[int, ...] = ()) -> DeadRow:
    return DeadRow(0, source, row, list(path), "step", "refused", "no", 1, "{}")


def read(folder: Path, *parts: tuple[list[DeadRow], list[DeadKey] | None]) -> DeadRows:
    layout, facts = Layout(folder), []
    for made in layout.folders():
        made.mkdir(parents=True, exist_ok=True)
    for number, (rows, keys) in enumerate(parts):
        name = f"part-{number:05d}.parquet"
        size = writer_for("parquet").write(layout.dead / name, dead_table(rows))
        if keys is not None:
            (layout.keys / name).write_bytes(encode_dead_keys(keys))
        digest = hash_bytes((layout.dead / name).read_bytes())
        facts.append(PartFact(name, "", len(rows), size, digest, name if keys is not None else ""))
    entry = Entry(seq=1, epoch=1, kind="epoch", owner="", previous="", written=0.0, dead_parts=tuple(facts))
    Manifest(layout, Files()).append(entry)

    def find(wanted: set[Any]) -> dict[Any, list[int]]:
        return {place: PLACES[place] for place in wanted}

    return read_dead(layout, Files(), None, find)


def test_a_name_that_stands_for_one_place(tmp_path: Path) -> None:
    found = read(tmp_path, ([dead("b", 0, (1,)), dead("b", 0, (2,))], None))
    assert found.by_part == {"part-00000.parquet": [DeadKey((2, (1,)), -1), DeadKey((2, (2,)), -1)]}
    assert [(key.key, row["path"]) for key, row in found.rows] == [((2, (1,)), [1]), ((2, (2,)), [2])]


def test_a_name_all_of_whose_places_have_died(tmp_path: Path) -> None:
    found = read(tmp_path, ([dead("a", 0), dead("a", 1)], None), ([dead("a", 0), dead("a", 1)], None))
    assert [key for key, _ in found.rows] == [DeadKey((position, ()), -1) for position in (0, 1, 4, 5)]


def test_one_of_two_places_that_can_not_be_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lists a 2 times, and its row 0 is dead in 1 of these places.*penstock run"):
        read(tmp_path, ([dead("a", 0)], None))


def test_the_place_that_a_later_part_does_not_name(tmp_path: Path) -> None:
    found = read(tmp_path, ([dead("a", 0)], None), ([dead("a", 0)], [DeadKey((0, ()), 0)]))
    assert [key for key, _ in found.rows] == [DeadKey((4, ()), -1), DeadKey((0, ()), 0)]
