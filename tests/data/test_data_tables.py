from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_support import read_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from example_counts import examples
from penstock.data.columns import TableBuilder
from penstock.data.open import open_source
from penstock.data.parts import writer_for
from penstock.errors import ConfigError, InputError

FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))

COLUMNS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "string": (pa.string(), ["a", None, ""]),
    "large_string": (pa.large_string(), ["a", None, "é"]),
    "string_view": (pa.string_view(), ["a", None, "a string that is longer than twelve"]),
    "binary": (pa.binary(), [b"\xff\x00", None, b""]),
    "fixed_binary": (pa.binary(2), [b"ab", None, b"cd"]),
    "int8": (pa.int8(), [-128, None, 127]),
    "uint64": (pa.uint64(), [2**64 - 1, None, 0]),
    "float32": (pa.float32(), [0.1, None, float("inf")]),
    "float64": (pa.float64(), [0.1, None, -0.0]),
    "float16": (pa.float16(), [1.5, None, 2.0]),
    "bool": (pa.bool_(), [True, None, False]),
    "null": (pa.null(), [None, None, None]),
    "date32": (pa.date32(), [dt.date(1, 1, 1), None, dt.date(9999, 12, 31)]),
    "time_us": (pa.time64("us"), [dt.time(23, 59, 59, 999999), None, dt.time(0)]),
    "timestamp_us": (pa.timestamp("us"), [dt.datetime(2020, 1, 2, 3, 4, 5, 6), None, dt.datetime(1969, 1, 1)]),
    "timestamp_tz": (pa.timestamp("ms", "Europe/Paris"), [1_600_000_000_123, None, 0]),
    "timestamp_ns": (pa.timestamp("ns"), [1_600_000_000_000_000_000, None, 1000]),
    "timestamp_odd_ns": (pa.timestamp("ns", "UTC"), [1_600_000_000_000_000_001, None, 1]),
    "duration": (pa.duration("us"), [dt.timedelta(days=-1, microseconds=1), None, dt.timedelta(0)]),
    "duration_odd_ns": (pa.duration("ns"), [1, None, 2]),
    "decimal": (pa.decimal128(20, 3), [Decimal("-12345678901234567.123"), None, Decimal("0.100")]),
    "decimal256": (pa.decimal256(50, 2), [Decimal("1.25"), None, Decimal("0.00")]),
    "list": (pa.list_(pa.int32()), [[1, None], None, []]),
    "large_list": (pa.large_list(pa.string()), [["a"], None, []]),
    "fixed_list": (pa.list_(pa.float32(), 2), [[1.0, 2.0], None, [0.5, 0.25]]),
    "struct": (
        pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))]),
        [{"x": 1, "y": ["a"]}, None, {"x": None, "y": None}],
    ),
    "map": (pa.map_(pa.string(), pa.int64()), [[("a", 1), ("a", 2)], None, []]),
    "list_of_ns": (pa.list_(pa.timestamp("ns")), [[1, 1000], None, []]),
    "far_time": (pa.timestamp("ms"), [10**15, None, -(10**15)]),
}


def exact_table() -> pa.Table:
    arrays = {name: pa.array(values, type_) for name, (type_, values) in COLUMNS.items()}
    return pa.table(arrays)


def write(path: Path, table: pa.Table, **options: Any) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path, **options)
    elif path.suffix == ".arrow":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=options.get("row_group_size", 3))
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=options.get("row_group_size", 3))
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".arrows"])
@pytest.mark.parametrize("sink", ["parquet", "arrow"])
def test_every_type_comes_out_as_it_went_in(tmp_path: Path, suffix: str, sink: str) -> None:
    path = write(tmp_path / f"in{suffix}", exact_table())
    source = open_source(str(path))
    found = read_all(source, max_rows=2)
    assert found.unreadable == {}
    table, rejected = TableBuilder(source.schema).build(found.values)
    assert rejected == []
    expected = pq.read_table(path) if suffix == ".parquet" else exact_table()
    assert source.schema.types == expected.schema.types
    for name in expected.column_names:
        assert table[name].combine_chunks() == expected[name].combine_chunks(), name
    out = tmp_path / f"out.{sink}"
    assert writer_for(sink).write(out, table) == out.stat().st_size
    again = pq.read_table(out) if sink == "parquet" else pa.ipc.open_file(out).read_all()
    for name in expected.column_names:
        assert again[name].combine_chunks() == expected[name].combine_chunks(), name


def test_nanoseconds_are_datetimes_where_they_fit_and_integers_where_not(tmp_path: Path) -> None:
    path = write(tmp_path / "in.parquet", exact_table().select(["timestamp_ns", "timestamp_odd_ns"]))
    first = read_all(open_source(str(path))).values[0]
    assert first["timestamp_ns"] == dt.datetime(2020, 9, 13, 12, 26, 40)
    assert type(first["timestamp_ns"]) is dt.datetime
    assert first["timestamp_odd_ns"] == 1_600_000_000_000_000_001


def test_dictionaries_are_decoded_and_extensions_are_their_storage(tmp_path: Path) -> None:
    words = pa.array(["a", "b", "a"]).dictionary_encode()
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"1" * 16] * 3, pa.binary(16)))
    nested = pa.StructArray.from_arrays([ids], names=["id"])
    table = pa.table({"word": words, "id": ids, "nested": nested})
    for suffix in (".parquet", ".arrow"):
        source = open_source(str(write(tmp_path / f"in{suffix}", table)))
        assert [str(type_) for type_ in source.schema.types] == [
            "string",
            "fixed_size_binary[16]",
            "struct<id: fixed_size_binary[16]>",
        ]
        assert read_all(source).values[0] == {"word": "a", "id": b"1" * 16, "nested": {"id": b"1" * 16}}


def numbers(count: int) -> pa.Table:
    return pa.table({"id": pa.array(range(count)), "text": [f"row {index}" for index in range(count)]})


@pytest.fixture(params=[".parquet", ".arrow", ".arrows"])
def three_files(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    table = numbers(300)
    for name, start, length in (("a", 0, 100), ("b", 100, 0), ("c", 100, 200)):
        write(tmp_path / f"{name}{request.param}", table.slice(start, length), row_group_size=33)
    return tmp_path


@FUZZ
@given(starts=st.lists(st.integers(0, 300), min_size=1, max_size=5), max_rows=st.integers(1, 90))
def test_reading_after_seeks_equals_reading_straight(three_files: Path, starts: list[int], max_rows: int) -> None:
    source = open_source(str(three_files))
    for start in starts:
        chunk = source.read(start, None, max_rows)
        assert (chunk is None) == (start == 300)
        if chunk is not None:
            assert [row["id"] for row in chunk.rows] == list(range(start, start + len(chunk.rows)))
            assert source.locate(start)[1] == (start if start < 100 else start - 100)
    source.close()


@FUZZ
@given(wanted=st.sets(st.integers(0, 299)), max_rows=st.integers(1, 90))
def test_skipped_positions_are_passed_over(three_files: Path, wanted: set[int], max_rows: int) -> None:
    found = read_all(open_source(str(three_files)), max_rows=max_rows, skip=lambda position: position not in wanted)
    assert {position: row["id"] for position, row in found.rows.items()} == {index: index for index in wanted}
    assert found.end == 300


def test_totals_are_known_from_footers(three_files: Path) -> None:
    source = open_source(str(three_files))
    streamed = (three_files / "a.arrows").exists()
    assert source.total_rows == (None if streamed else 300)
    assert [file["rows"] for file in source.identity()["files"]] == ([None] * 3 if streamed else [100, 0, 200])


def test_columns_of_files_join_and_types_must_agree(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", pa.table({"x": pa.nulls(1), "y": [1]}))
    write(tmp_path / "b.parquet", pa.table({"x": ["t"], "z": [1.5]}))
    source = open_source(str(tmp_path))
    assert source.schema == pa.schema([("x", pa.string()), ("y", pa.int64()), ("z", pa.float64())])
    assert read_all(source).values == [{"x": None, "y": 1, "z": None}, {"x": "t", "y": None, "z": 1.5}]
    write(tmp_path / "c.parquet", pa.table({"y": ["late"]}))
    with pytest.raises(InputError, match=r"c\.parquet: column 'y' is string here and int64 in the files before"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_empty_and_wrong_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    assert read_all(open_source(str(path))).end == 0
    path.write_bytes(b'{"a": 1}\n' * 10)
    with pytest.raises(InputError, match="is not a"):
        open_source(str(path))
    write(path, numbers(0))
    source = open_source(str(path))
    assert source.schema.names == ["id", "text"]
    assert read_all(source).end == 0


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.arrows"])
@FUZZ
@given(place=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_raises_input_errors_only(tmp_path: Path, name: str, place: float, byte: int, cut: bool) -> None:
    path = write(tmp_path / name, exact_table().select(["string", "list", "int8", "struct", "string_view"]))
    data = bytearray(path.read_bytes())
    index = int(place * (len(data) - 1))
    data[index] = byte
    path.write_bytes(data[:index] if cut else data)
    try:
        found = read_all(open_source(str(path)))
    except InputError as error:
        assert name in str(error)
    else:
        assert sorted([*found.rows, *found.unreadable]) == list(range(found.end))


def test_a_footer_that_claims_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", numbers(10))
    monkeypatch.setattr("penstock.data.parquet.MAX_ROWS_PER_FILE_BYTE", 0)
    with pytest.raises(InputError, match="claims 10 rows"):
        open_source(str(path))


def test_text_that_is_not_utf8_is_one_unreadable_row(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff\xfe", b"c"], pa.binary()).buffers())
    for suffix in (".parquet", ".arrow"):
        found = read_all(open_source(str(write(tmp_path / f"in{suffix}", pa.table({"t": broken})))))
        assert found.values == [{"t": "a"}, {"t": "c"}]
        assert found.codes == ["bad_encoding"]
        assert "row 1: column 't'" in found.unreadable[1].message


def test_types_that_no_row_can_hold_are_refused(tmp_path: Path) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
    with pytest.raises(InputError, match="column 'u' has the type"):
        open_source(str(write(tmp_path / "a.arrow", pa.table({"u": union}))))


def test_a_given_schema_must_be_that_of_the_files(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.parquet", numbers(3)))
    assert read_all(open_source(path, schema={"id": "int64"})).end == 3
    with pytest.raises(ConfigError, match="column 'id' is int64 in the files, not string"):
        open_source(path, schema={"id": "string"})
