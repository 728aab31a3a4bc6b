"""The small parts of the ledger by themselves: ended positions, merging by key, entries, segments."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.counts import Counts
from penstock.errors import InvariantError, LedgerDamaged
from penstock.ledger import segments
from penstock.ledger.base import Origin
from penstock.ledger.bits import EndedPositions
from penstock.ledger.entry import FORMAT, READABLE, Entry, PartFact, decode_entry, encode_entry, hash_bytes
from penstock.ledger.files import Files
from penstock.ledger.keyed import Key, keys_of, merge, with_keys, without_keys
from penstock.ledger.layout import Layout
from penstock.ledger.part_keys import encode_keys, encode_keys_of, read_keys
from penstock.ledger.segments import decode_schema, encode_schema, read_segment, write_segment


@given(st.lists(st.sets(st.integers(0, 200), max_size=30), max_size=8))
def test_ended_positions_agree_with_a_set(batches: list[set[int]]) -> None:
    ended, model, watermark = EndedPositions(), set(), 0
    for chosen in batches:
        new = sorted(chosen - model)
        model |= set(new)
        while watermark in model:
            watermark += 1
        ended = ended.advanced(new, watermark)
        assert list(ended.above()) == sorted(position for position in model if position >= watermark)
        assert all((position in ended) == (position in model) for position in range(210))
        ended = EndedPositions.decode(watermark, ended.encode())


def test_ended_positions_refuse_what_can_not_be() -> None:
    ended = EndedPositions().advanced([0, 1, 5], 2)
    for positions, watermark in (([1], 2), ([5], 2), ([2], 4), ([2], 1), ([3, 2], 2)):
        if positions == [3, 2]:
            continue
        with pytest.raises(InvariantError):
            ended.advanced(positions, watermark)


@given(st.integers(0, 100), st.text(max_size=20))
def test_a_wrong_bitmap_is_damage(watermark: int, text: str) -> None:
    try:
        list(EndedPositions.decode(watermark, text).above())
    except LedgerDamaged:
        return
    assert text == "" or EndedPositions.decode(watermark, text) is not None


keys = st.lists(
    st.tuples(st.integers(0, 12), st.lists(st.integers(0, 3), max_size=3).map(tuple)), unique=True, max_size=40
)


@given(st.lists(st.tuples(keys, st.integers(1, 5)), max_size=5))
def test_merging_is_sorting(streams: list[tuple[list[Key], int]]) -> None:
    """Streams of sorted tables of any size, empty ones among them, come out as one sorted sequence."""
    seen: set[Key] = set()
    sources, model = [], []
    for number, (chosen, chunk) in enumerate(streams):
        unique = sorted(key for key in chosen if key not in seen)
        seen |= set(unique)
        model += [(key, number) for key in unique]
        tables = [table_of(unique[start : start + chunk], number) for start in range(0, len(unique), chunk)]
        sources.append(iter([table_of([], number), *tables]))
    merged = [row for table in merge(sources) for row in rows_of(table)]
    assert merged == sorted(model)


def table_of(chosen: list[Key], number: int) -> pa.Table:
    return with_keys(chosen, pa.table({"position": pa.array([number] * len(chosen), pa.int64())}))


def rows_of(table: pa.Table) -> list[tuple[Key, int]]:
    positions, paths = table.column(0).to_pylist(), table.column(1).to_pylist()
    values = without_keys(table).column("position").to_pylist()  # a user's column of this name is no key
    return [((position, tuple(path)), value) for position, path, value in zip(positions, paths, values, strict=True)]


ENTRY = Entry(
    seq=7, epoch=2, kind="commit", owner="ab", previous="cd", written=1.5, counts=Counts(out=3, steps={"g": (3, 3, 0)})
)


def test_an_entry_reads_back() -> None:
    assert decode_entry(encode_entry(ENTRY), "x") == ENTRY


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_altered_byte_of_an_entry_is_noticed(place: int, mask: int) -> None:
    data = bytearray(encode_entry(ENTRY).rstrip())
    data[place % len(data)] ^= mask
    try:
        assert decode_entry(bytes(data), "x") == ENTRY
    except LedgerDamaged:
        return


@given(st.binary(max_size=200))
def test_reading_an_entry_never_fails_otherwise(data: bytes) -> None:
    with pytest.raises(LedgerDamaged):
        decode_entry(data, "x")


@pytest.mark.parametrize("format", [READABLE[0] - 1, FORMAT + 1])
def test_an_entry_of_another_format_says_so(format: int) -> None:
    envelope = msgspec.json.decode(encode_entry(ENTRY))
    with pytest.raises(LedgerDamaged, match=f"has format {format}.*the version that wrote it"):
        decode_entry(msgspec.json.encode({**envelope, "format": format}), "x")


@pytest.mark.parametrize("format", READABLE)
def test_entries_of_older_formats_are_read(format: int) -> None:
    envelope = msgspec.json.decode(encode_entry(ENTRY))
    assert decode_entry(msgspec.json.encode({**envelope, "format": format}), "x") == ENTRY


def write(folder: Path, tables: list[pa.Table]) -> tuple[Layout, object]:
    layout = Layout(folder)
    layout.segments.mkdir(parents=True)
    return layout, write_segment(layout, Files(), "s.arrow", tables)


def test_a_segment_reads_back_in_small_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "BATCH_ROWS", 3)
    chosen: list[Key] = [(position, ()) for position in range(5, 15)]
    layout, fact = write(tmp_path, [table_of(chosen[:4], 1), table_of(chosen[4:], 2)])
    assert (fact.rows, fact.first, fact.last) == (10, 5, 14)
    assert fact.bytes == layout.segment("s.arrow").stat().st_size
    tables = list(read_segment(layout, Files(), fact))
    assert max(table.num_rows for table in tables) == 3
    assert [row for table in tables for row in rows_of(table)] == [
        (key, 1 if index < 4 else 2) for index, key in enumerate(chosen)
    ]


def extension_schema() -> pa.Schema:
    metadata = {"ARROW:extension:name": "some.loader", "ARROW:extension:metadata": "code"}
    return pa.schema([pa.field("x", pa.int64(), metadata=metadata)])


def test_extension_types_are_refused_before_they_are_loaded(tmp_path: Path) -> None:
    with pytest.raises(LedgerDamaged, match="extension type"):
        decode_schema(encode_schema(extension_schema()), "x")
    table = with_keys([(0, ())], pa.table({"x": [1]}, schema=extension_schema()))
    layout, fact = write(tmp_path, [table])
    with pytest.raises(LedgerDamaged, match="extension type"):
        list(read_segment(layout, Files(), fact))


@given(st.binary(max_size=100))
def test_a_schema_that_is_none_is_damage(data: bytes) -> None:
    with pytest.raises(LedgerDamaged):
        decode_schema(base64.b64encode(data).decode(), "x")


KEYS = st.lists(
    st.tuples(st.integers(0, 30), st.lists(st.integers(0, 2), max_size=2).map(tuple)), unique=True, min_size=1
)


@given(keys=KEYS, plain=st.booleans())
def test_the_keys_of_a_part_are_told_in_runs(keys: list[Key], plain: bool) -> None:
    keys = sorted({(position, ()) for position, _ in keys} if plain else set(keys))
    table = with_keys(keys, pa.table({"n": list(range(len(keys)))}))
    assert encode_keys_of(table) == encode_keys(keys)
    with tempfile.TemporaryDirectory() as name:
        layout = Layout(Path(name))
        layout.keys.mkdir(parents=True)
        (layout.keys / "k").write_bytes(encode_keys(keys))
        assert read_keys(layout, Files(), PartFact("p", "", len(keys), 0, "", "k")) == keys
        with pytest.raises(LedgerDamaged, match="this file lists"):
            read_keys(layout, Files(), PartFact("p", "", len(keys) + 1, 0, "", "k"))


@given(place=st.integers(0, 1000), mask=st.integers(1, 255))
def test_any_altered_byte_of_the_keys_of_a_part_is_noticed(place: int, mask: int) -> None:
    """A row that is run again would take the place of another."""
    encoded = encode_keys([(3, ()), (4, ()), (900, (1, 2))])
    altered = bytearray(encoded)
    altered[place % len(encoded)] ^= mask
    with tempfile.TemporaryDirectory() as name:
        layout = Layout(Path(name))
        layout.keys.mkdir(parents=True)
        (layout.keys / "k").write_bytes(altered)
        with pytest.raises(LedgerDamaged, match=r"k: this file, which lists the rows of p, was modified"):
            read_keys(layout, Files(), PartFact("p", "", 3, 0, "", "k", hash_bytes(encoded)))


def test_columns_of_a_run_are_not_taken_for_origins() -> None:
    """A user's columns may have the names of those of an origin; they allow nulls."""
    names = ("origin_position", "origin_path", "origin_source", "origin_row", "origin_lost")
    theirs = pa.table({name: pa.array([7], pa.int64()) for name in names})
    table = with_keys([(3, (1,))], theirs)
    assert keys_of(table) == [(3, (1,))] and without_keys(table) == theirs
    assert keys_of(with_keys([(3, (1,))], theirs, [Origin(5, (2,), "x", 5)])) == [(5, (2,))]
