"""Memory of reading: what one read, one sample, one record and one schema may take, whatever the file unfolds to."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_support import read_all
from hypothesis import given
from hypothesis import strategies as st

from penstock.data import csvs, ipc, lines
from penstock.data.csvs import infer_csv_schema
from penstock.data.decoded import decoded_bytes
from penstock.data.limits import CHUNK_BYTES, MAX_COLUMNS, MAX_KEYS, MAX_LINE_BYTES
from penstock.data.lines import LineReader
from penstock.data.open import open_rows, open_source
from penstock.data.sizes import memory_of, shown_names, shown_type
from penstock.errors import InputError

MIB = 1 << 20


def write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# ------------------------------------------------------------ keys that are ids, and very many columns


def test_objects_whose_keys_are_ids_are_refused_with_what_to_do(tmp_path: Path) -> None:
    rows = [{"q": "a", "scores": {f"user_{10 * row + key}": 1.0 for key in range(10)}} for row in range(500)]
    path = write_lines(tmp_path / "in.jsonl", rows)
    with pytest.raises(InputError) as failure:
        open_source(path)
    message = str(failure.value)
    assert f"column 'scores': its objects have more than {MAX_KEYS:,} distinct keys (user_0, user_1, " in message
    assert "jq -c '.[\"scores\"] |= to_entries' FILE > NEW.jsonl" in message and len(message) < 600


def test_ids_deep_inside_are_found_with_their_place(tmp_path: Path) -> None:
    rows = [{"a": [{"b": {f"id_{10 * row + key}": [1] for key in range(10)}}]} for row in range(200)]
    with pytest.raises(InputError, match=r"at \[\]\.b have more than") as failure:
        open_source(write_lines(tmp_path / "in.jsonl", rows))
    assert '.["a"][]["b"] |= to_entries' in str(failure.value)


def test_the_fields_of_all_objects_are_bounded_together(tmp_path: Path) -> None:
    row = {
        f"c{column}": {f"k{key}": {f"x{inner}": 1 for inner in range(50)} for key in range(50)} for column in range(9)
    }
    with pytest.raises(InputError, match="more than 10,000 distinct keys"):
        open_source(write_lines(tmp_path / "in.jsonl", [row]))


def test_objects_of_few_keys_are_structs_as_before(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", [{"a": {f"k{key}": key for key in range(MAX_KEYS)}}])
    assert pa.types.is_struct(open_source(path).schema.field("a").type)


def test_rows_given_in_python_are_bounded_as_well() -> None:
    with pytest.raises(InputError, match="If the keys are ids"):
        open_rows([{"a": {str(row): 1, str(-row): 1}} for row in range(MAX_KEYS)])


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".arrow"])
def test_too_many_columns_are_refused(tmp_path: Path, suffix: str) -> None:
    names = [f"column_{index}" for index in range(MAX_COLUMNS + 1)]
    path = tmp_path / f"in{suffix}"
    table = pa.table({name: [1] for name in names})
    if suffix == ".jsonl":
        write_lines(path, [dict.fromkeys(names, 1)])
    elif suffix == ".csv":
        path.write_text(",".join(names) + "\n" + ",".join("1" * len(names)) + "\n")
    elif suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(InputError, match=f"more than {MAX_COLUMNS:,}") as failure:
        open_source(str(path))
    assert "column_9" in str(failure.value) and len(str(failure.value)) < 700


def test_names_and_types_in_messages_stay_short() -> None:
    assert shown_names(["a", "b"]) == "a, b"
    assert shown_names([f"c{index}" for index in range(1000)]).endswith("c11, ... and 988 more")
    assert len(shown_type(pa.struct([(f"field_{index}", pa.int64()) for index in range(5000)]))) < 100
    assert shown_type(pa.list_(pa.int64())) == "list<item: int64>"


# ------------------------------------------------------------ large rows


@pytest.mark.parametrize("text", ["x", "é", "日", "😀"])
def test_a_row_counts_with_all_that_it_holds(tmp_path: Path, text: str) -> None:
    rows = [{"q": text * 5000, "n": [[1.5] * 100] * 100, "o": [{}] * 100}]
    source = open_source(write_lines(tmp_path / "in.jsonl", rows))
    chunk = source.read(0, None, 10)
    source.close()
    assert chunk is not None
    assert memory_of(chunk.rows[0]) <= chunk.sizes_bytes[0] <= 2 * memory_of(chunk.rows[0])


def test_small_nested_lists_count_many_times_their_line(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"q": [' + "[]," * 100_000 + "[]]}\n")
    source = open_source(str(tmp_path / "in.jsonl"))
    chunk = source.read(0, None, 10)
    source.close()
    assert chunk is not None and chunk.sizes_bytes[0] > 5_000_000


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".csv.gz"])
def test_a_sample_of_large_rows_is_not_held(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"" if suffix == ".jsonl.gz" else b"q\n")
        for _ in range(30):
            begin, end = (b'{"q": "', b'"}\n') if suffix == ".jsonl.gz" else (b'"', b'"\n')
            file.write(begin + b"x" * (6 * MIB) + end)
    tracemalloc.start()
    try:
        assert open_source(str(path)).schema.names == ["q"]
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 120 * MIB, f"{peak_bytes >> 20} MiB"


def dictionary(count: int, size_bytes: int) -> pa.DictionaryArray:
    texts = pa.array([letter * size_bytes for letter in "xyz"], pa.large_string())
    return pa.DictionaryArray.from_arrays(pa.array([index % 3 for index in range(count)], pa.int32()), texts)


def write_table(path: Path, table: pa.Table, compression: str | None = None) -> str:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
            writer.write_table(table)
    return str(path)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("plain", [False, True])
def test_one_read_of_a_text_that_is_repeated_is_bounded(tmp_path: Path, suffix: str, plain: bool) -> None:
    column = dictionary(200, MIB)
    table = pa.table({"q": column.cast(pa.large_string()) if plain else column})
    path = write_table(tmp_path / f"in{suffix}", table)
    assert plain or Path(path).stat().st_size < 4 * MIB
    source = open_source(path)
    position = count = 0
    while (chunk := source.read(position, None, 2048)) is not None:
        assert sum(len(row["q"]) for row in chunk.rows) <= CHUNK_BYTES
        assert all(size >= MIB for size in chunk.sizes_bytes)
        assert [row["q"][:1] for row in chunk.rows] == ["xyz"[(position + at) % 3] for at in range(len(chunk.rows))]
        position, count = chunk.next_position, count + len(chunk.rows)
    assert count == 200
    source.close()


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_row_beyond_the_limit_is_dead_and_its_neighbours_are_not(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"n": [0, 1, 2], "q": ["a", "b" * (MAX_LINE_BYTES + 100), "c"]})
    found = read_all(open_source(write_table(tmp_path / f"in{suffix}", table)))
    assert [row["n"] for row in found.values] == [0, 2]
    assert found.codes == ["line_too_long"] and "the limit of one row is 33554432" in found.unreadable[1].message


def test_views_that_name_one_range_many_times_count_each_time() -> None:
    values = pa.array(["x" * 1000] * 1000)
    offsets, sizes = pa.array([0] * 500, pa.int32()), pa.array([1000] * 500, pa.int32())
    views = pa.ListViewArray.from_arrays(offsets, sizes, values)
    assert decoded_bytes(views) >= 500 * 1000 * 1000
    texts = pa.array(["x" * 1000, None, "ab"], pa.string_view())
    assert 1002 <= decoded_bytes(texts) <= 2000 and decoded_bytes(texts[1:]) < 1000


@pytest.mark.parametrize(
    "type_",
    [
        pa.dictionary(pa.int32(), pa.string()),
        pa.list_(pa.dictionary(pa.int32(), pa.string())),
        pa.struct([("a", pa.dictionary(pa.int8(), pa.string()))]),
        pa.run_end_encoded(pa.int32(), pa.string()),
    ],
)
def test_decoded_sizes_are_no_less_than_the_texts(type_: pa.DataType) -> None:
    long = "x" * 10_000
    value: Any = [long] if pa.types.is_list(type_) else {"a": long} if pa.types.is_struct(type_) else long
    if pa.types.is_run_end_encoded(type_):
        array: Any = pa.RunEndEncodedArray.from_arrays(pa.array([50], pa.int32()), pa.array([long]))
    else:
        array = pa.array([value] * 50, type_)
    assert 50 * 10_000 <= decoded_bytes(array) <= 100 * 10_000


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_compressed_batch_is_refused_before_it_unfolds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str, stream: bool
) -> None:
    monkeypatch.setattr(ipc, "MAX_BATCH_BYTES", 10 * MIB)
    table = pa.table({"q": ["x" * MIB] * 20})
    path = tmp_path / "in.arrow"
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table.slice(0, 5))
        writer.write_table(table)
    source = open_source(str(path))
    first = source.read(0, None, 100)
    assert first is not None and len(first.rows) == 5
    with pytest.raises(InputError, match=r"record batch 1 decompresses to 2097.* bytes; the limit is 10485760"):
        source.read(5, None, 100)
    source.close()


# ------------------------------------------------------------ records and blank lines


def test_a_quotation_mark_left_open_costs_records_of_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvs, "MAX_LINE_BYTES", 1000)
    (tmp_path / "in.csv").write_text('a,b\n1,fine\n2,"open\n' + "3,lost\n" * 200 + "4,later\n" * 3)
    found = read_all(open_source(str(tmp_path / "in.csv")))
    dead = [record.message for record in found.unreadable.values()]
    assert found.codes == ["line_too_long"] and "is a quotation mark unclosed?" in dead[0]
    assert found.rows[0] == {"a": 1, "b": "fine"} and found.values[-1] == {"a": 4, "b": "later"}


LINES = [b"\n", b" \n", b"\r\n", b"\t \n", b'{"a": 1}\n', b"{\n"]


@given(st.lists(st.sampled_from(LINES), max_size=60), st.integers(1, 5), st.integers(1, 80))
def test_blank_lines_have_no_position_and_keep_the_line_numbers(lines: list[bytes], max_rows: int, block: int) -> None:
    """Whatever the blocks: those of nothing but blank lines are passed over as a whole."""
    reader = LineReader(io.BytesIO(b"".join(lines)), block_bytes=block)
    found: list[tuple[int, int, bytes]] = []
    while True:
        reader.pass_blank()
        number, offset = reader.lines + 1, reader.offset
        taken = reader.take(max_rows)
        if not taken:
            break
        for line in taken:
            assert isinstance(line, bytes)
            found.append((number, offset, line))
            number, offset = number + 1, offset + len(line) + 1
    expected = [(at + 1, sum(map(len, lines[:at])), line[:-1]) for at, line in enumerate(lines)]
    assert [item for item in found if item[2].strip()] == [item for item in expected if item[2].strip()]


def test_a_file_of_blank_lines_is_passed_over_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gzip.open(tmp_path / "in.jsonl.gz", "wb", compresslevel=9) as file:
        for _ in range(20):
            file.write(b"\n" * MIB)
        file.write(b'{"a": 1}\n{\n')
    looked_at = 0

    def counting(line: bytes) -> bool:
        nonlocal looked_at
        looked_at += 1
        return not line.strip()

    monkeypatch.setattr(lines, "is_blank", counting)
    found = read_all(open_source(str(tmp_path / "in.jsonl.gz")))
    assert found.values == [{"a": 1}] and f"line {20 * MIB + 2}:" in found.unreadable[1].message
    assert looked_at < 1000


def test_blank_lines_inside_a_quoted_field_are_data(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n" + "\n" * 10_000 + '1,"x' + "\n" * 10_000 + 'y"\n\n\n2,z\n3\n')
    found = read_all(open_source(str(tmp_path / "in.csv")))
    assert found.values == [{"a": 1, "b": "x" + "\n" * 10_000 + "y"}, {"a": 2, "b": "z"}]
    assert found.unreadable[2].message.startswith("line 20006:")


CELLS = st.lists(
    st.sampled_from(["", "1", "-7", "01", "1.5", "1e5", "1e999", "true", "x", "9" * 19, "9" * 30]), max_size=6
)


@given(CELLS)
def test_csv_types_come_of_all_cells(cells: list[str]) -> None:
    filled = [cell for cell in cells if cell]
    numbers = {"1", "-7", "1.5", "1e5", "9" * 30, "9" * 19}
    expected = pa.string()
    if filled and all(cell == "true" for cell in filled):
        expected = pa.bool_()
    elif filled and all(cell in ("1", "-7", "9" * 19, "9" * 30) for cell in filled):
        expected = pa.int64() if not {"9" * 19, "9" * 30} & set(filled) else pa.string()
    elif filled and all(cell in numbers for cell in filled):
        expected = pa.float64()
    assert infer_csv_schema(["a"], [{"a": cell} for cell in cells]).field("a").type == expected
