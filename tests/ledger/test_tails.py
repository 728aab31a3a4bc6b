"""Small parts at the end of data/ and dead/ are joined; whoever reads meanwhile sees the beginning of the output."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_support import READERS, Coordinator, assert_complete, dead, dead_ordinals, expected, open_ledger, outcome

from penstock.data.columns import TableBuilder
from penstock.ledger.dead_rows import standing_parts
from penstock.ledger.entry import PartFact
from penstock.ledger.files import Files
from penstock.ledger.joining import SMALL_BYTES, SMALL_ROWS, tail_after
from penstock.ledger.layout import Layout
from penstock.ledger.manifest import Manifest
from penstock.ledger.part_keys import read_keys
from penstock.ledger.view import read_run

TOTAL = 120
MOST = 8  # small parts, in place of tails.MAX_TAIL
SOURCE = pa.schema([("n", pa.int64())])


def columns(fixed: pa.Schema | None) -> TableBuilder:
    return TableBuilder(SOURCE) if fixed is None else TableBuilder.from_fixed(fixed)


def rows_in(out: Path, sink_format: str = "parquet") -> list[dict]:
    return [row for part in sorted((out / "data").iterdir()) for row in READERS[sink_format](part)]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.ledger.joining.MAX_TAIL", MOST)


@pytest.mark.parametrize("sink_format", list(READERS))
def test_many_small_parts_of_the_output_are_joined(tmp_path: Path, sink_format: str) -> None:
    """As after a hundred stops: few parts at any time, each row once, in the order of the input."""
    out, most = tmp_path / "out", 0
    with open_ledger(out, sink_format=sink_format, table=columns) as ledger:
        coordinator = Coordinator(ledger, TOTAL)
        for position in range(TOTAL):
            coordinator.commit([position], final=position == TOTAL - 1)
            most = max(most, len(list((out / "data").iterdir())))
    rows, lost = expected(TOTAL)
    assert rows_in(out, sink_format) == rows and dead_ordinals(out) == lost
    assert most <= MOST + 1
    parts, dead_parts = standing_parts(Manifest(Layout(out), Files()))
    assert sorted(parts) == sorted(path.name for path in (out / "data").iterdir())
    keys = [key for part in parts.values() for key in read_keys(Layout(out), Files(), part)]
    assert keys == [(row.position, row.path) for position in range(TOTAL) for row in outcome(position)[0]]
    known = {part.keys for part in (*parts.values(), *dead_parts.values())}
    assert known == {path.name for path in (out / ".penstock" / "keys").iterdir()}
    assert read_run(out).counts.out == len(rows)


def test_in_the_order_of_completion(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_ledger(out, order="completion") as ledger:
        coordinator = Coordinator(ledger, TOTAL)
        for position in [*range(1, TOTAL, 2), *range(0, TOTAL, 2)]:
            coordinator.commit([position])
        coordinator.commit([], final=True)
    rows, _ = expected(TOTAL)
    assert sorted(rows_in(out), key=lambda row: (row["n"], row["text"])) == rows
    assert len(list((out / "data").iterdir())) <= MOST + 1


class Reading(Files):
    """Reads the output after every single change of a name."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._out, self._rows = out, expected(TOTAL)[0]
        self._lost = set(expected(TOTAL)[1])
        self.looks = 0

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._look(target)

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._look(path)

    def _look(self, changed: Path) -> None:
        if changed.parent.name in ("data", "dead"):
            self.looks += 1
            found = rows_in(self._out) if changed.parent.name == "data" else []
            assert found == self._rows[: len(found)], f"after {changed.name} had changed"
            ordinals = dead_ordinals(self._out)
            assert len(set(ordinals)) == len(ordinals) and self._lost.issuperset(ordinals)


def test_a_reader_sees_the_beginning_and_no_row_twice(tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = Reading(out)
    with open_ledger(out, files=files) as ledger:
        coordinator = Coordinator(ledger, 120)
        for position in range(0, 120, 2):
            coordinator.commit([position, position + 1])
        coordinator.commit([], final=True)
    assert_complete(out, 120)
    assert files.looks > 60


@pytest.mark.parametrize("harm", ["altered", "gone", "keys gone"])
def test_a_part_that_is_not_as_it_was_is_left_alone_and_the_run_goes_on(tmp_path: Path, harm: str) -> None:
    out = tmp_path / "out"
    with open_ledger(out) as ledger:
        coordinator = Coordinator(ledger, 60)
        for position in range(100):
            coordinator.commit([position])
            if len(ledger.entry.data_tail) >= MOST:
                break
        part = out / "data" / "part-00003.parquet"
        if harm == "altered":
            part.write_bytes(b"other")
        else:
            (part if harm == "gone" else out / ".penstock" / "keys" / ledger.entry.data_tail[3].keys).unlink()
        coordinator.commit([position + 1])
        assert len(ledger.entry.data_tail) <= 1, "they are not tried again"
        coordinator.run()
    if harm == "keys gone":
        assert_complete(out, 60)
    elif harm == "altered":
        assert part.read_bytes() == b"other"


def test_dead_rows_too(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_ledger(out) as ledger:
        coordinator = Coordinator(ledger, 100)
        for position in range(100):
            batch = coordinator.batch([position])
            batch.finished, batch.dead = [], [dead(position)]
            ledger.commit(batch)
            coordinator.note(batch)
            assert dead_ordinals(out) == list(range(position + 1))
    assert len(list((out / "dead").iterdir())) <= MOST + 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from((1, SMALL_ROWS, SMALL_ROWS + 1, 10**6)), st.sampled_from((1, SMALL_BYTES, 2 * SMALL_BYTES))
        )
    )
)
def test_a_tail_is_the_small_parts_at_the_end(sizes: list[tuple[int, int]]) -> None:
    parts = tuple(PartFact(f"part-{n:05d}", "", rows, size, "") for n, (rows, size) in enumerate(sizes))
    tail = tail_after((), parts)
    assert parts[len(parts) - len(tail) :] == tail
    assert all(part.rows <= SMALL_ROWS and part.bytes <= SMALL_BYTES for part in tail)
    before = parts[len(parts) - len(tail) - 1 : len(parts) - len(tail)] if len(tail) < len(parts) else ()
    assert all(part.rows > SMALL_ROWS or part.bytes > SMALL_BYTES for part in before)
