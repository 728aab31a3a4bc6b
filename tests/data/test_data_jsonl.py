from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from data_support import Everything, read_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from example_counts import examples
from penstock.data import limits
from penstock.data.open import open_source
from penstock.errors import DEAD_CODES, InputError

FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
GOOD = b'{"id": 1, "text": "a"}'


def read_bytes(folder: Path, data: bytes, **options: Any) -> Everything:
    path = folder / "in.jsonl"
    path.write_bytes(data)
    return read_all(open_source(str(path)), **options)


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (b'{"id": 2,}', "bad_json", "line 1001:10"),
        (b"[1]", "bad_json", "not a JSON object, but a list"),
        (b"null", "bad_json", "not a JSON object, but null"),
        (b'{"id": 2} x', "bad_json", "line 1001:11"),
        (b'{"id": 2, "id": 3}', "bad_json", "duplicate key 'id'"),
        (b'{"id" : 2, "text":"b", "text":"c"}', "bad_json", "duplicate key 'text'"),
        (b'{"id": 2, "text": "\\":", "id": 3}', "bad_json", "duplicate key 'id'"),
        (b'{"id": 2, "text": "\xff"}', "bad_encoding", "not UTF-8 at byte 23019 of the file"),
        (b'{"id": 2, "text": "\\ud800"}', "bad_encoding", "surrogate"),
        (b'{"id": NaN}', "bad_number", "NaN"),
        (b'{"id": -Infinity}', "bad_number", "Infinity"),
        (b'{"id": 1e999}', "bad_number", "range"),
        (b'{"id": ' + b"1" * 5000 + b"}", "bad_number", "digits"),
        (b'{"id": 9223372036854775808}', "bad_number", "column 'id': expected int64"),
        (b'{"id": "x"}', "type_mismatch", "column 'id': expected int64, got string 'x'"),
        (b'{"id": true}', "type_mismatch", "column 'id': expected int64, got boolean"),
        (b'{"id": 1.0}', "type_mismatch", "column 'id': expected int64, got number 1.0"),
        (b'{"id": 2, "new": 1}', "type_mismatch", "column 'new': not in the schema"),
        (b"[" * 100_000, "too_deep", "64"),
        (b'{"text": ' * 70 + b"1" + b"}" * 70, "too_deep", "64"),
        (b'{"text": ' + b"[" * 900 + b"]" * 900 + b"}", "too_deep", "64"),
    ],
)
def test_one_bad_line_is_one_unreadable_record(tmp_path: Path, line: bytes, code: str, words: str) -> None:
    found = read_bytes(tmp_path, (GOOD + b"\n") * 1000 + line + b"\n" + GOOD, max_rows=300)
    assert found.end == 1002
    assert list(found.unreadable) == [1000]
    record = found.unreadable[1000]
    assert (record.code, record.row, record.position) == (code, 1000, 1000)
    assert words in record.message
    assert "line 1001" in record.message
    assert record.source.endswith("in.jsonl")
    assert record.input == line[: limits.INPUT_CHARS].decode("utf-8", "replace")


def test_a_long_line_is_passed_over_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.zst"
    with path.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as stream:
        stream.write(GOOD + b'\n{"id": 2, "text": "')
        for _ in range(40):
            stream.write(b"x" * (1 << 20))
        stream.write(b'"}\n' + GOOD + b"\n")
    found = read_all(open_source(str(path)))
    assert found.codes == ["line_too_long"]
    assert f"the limit is {32 << 20}" in found.unreadable[1].message
    assert len(found.unreadable[1].input) == 4096
    assert found.values == [json.loads(GOOD)] * 2


def test_a_cut_last_line_is_told_as_a_partial_upload(tmp_path: Path) -> None:
    found = read_bytes(tmp_path, GOOD + b"\n" + GOOD[:-4])
    assert found.codes == ["bad_json"]
    assert "partial upload" in found.unreadable[1].message


def test_mark_carriage_returns_and_blank_lines_are_accepted(tmp_path: Path) -> None:
    found = read_bytes(tmp_path, b"\xef\xbb\xbf\n" + GOOD + b"\r\n\r\n  \n" + GOOD + b"\n\n\n" + GOOD)
    assert found.values == [json.loads(GOOD)] * 3
    assert list(found.rows) == [0, 1, 2]


@pytest.mark.parametrize("text", ["\x00", "\u2028", "\u0085", '"', "\\", "é", "\U0001f600", '":', " :", "{[" * 100])
def test_odd_text_is_kept_exactly(tmp_path: Path, text: str) -> None:
    rows = [{"text": text, "n": 1}, {"text": json.dumps({"a": text}), "n": 2}]
    for ascii_only in (True, False):
        data = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows).encode()
        assert read_bytes(tmp_path, data).values == rows


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_nothing_in_the_file_is_no_rows(tmp_path: Path, data: bytes) -> None:
    found = read_bytes(tmp_path, data)
    assert (found.end, found.values, found.codes) == (0, [], [])


def test_missing_columns_are_null_and_types_come_from_the_sample(tmp_path: Path) -> None:
    lines = [
        b'{"a": 1, "e": {}, "l": [], "s": {"x": null, "y": [1, 2.5]}}',
        b'{"b": "t", "a": 2.5, "n": null}',
        b'{"s": {"y": [null]}}',
    ]
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(lines))
    source = open_source(str(path))
    assert dict(zip(source.schema.names, map(str, source.schema.types), strict=True)) == {
        "a": "double",
        "e": "map<string, string>",
        "l": "list<item: string>",
        "s": "struct<x: string, y: list<item: double>>",
        "b": "string",
        "n": "string",
    }
    first, second, third = read_all(source).values
    assert first == {"a": 1, "e": {}, "l": [], "s": {"x": None, "y": [1, 2.5]}, "b": None, "n": None}
    assert second["a"] == 2.5 and second["e"] is None
    assert third == dict.fromkeys(source.schema.names) | {"s": {"y": [None]}}


def test_an_unknown_field_of_an_object_is_no_silent_loss(tmp_path: Path) -> None:
    lines = [b'{"s": [{"x": 1}]}'] * 1000 + [b'{"s": [{"x": 1, "late": 2}]}', b'{"s": [{"x": "1"}]}']
    found = read_bytes(tmp_path, b"\n".join(lines), max_rows=500)
    assert found.codes == ["type_mismatch"] * 2
    assert "[0] unknown field 'late'" in found.unreadable[1000].message
    assert "[0] .x expected int64, got string" in found.unreadable[1001].message


def test_the_type_is_that_of_most_rows_of_the_sample(tmp_path: Path) -> None:
    found = read_bytes(tmp_path, b'{"a": "odd"}\n' + b'{"a": 1}\n' * 10)
    assert list(found.unreadable) == [0]
    assert found.codes == ["type_mismatch"]


def test_a_given_schema_stands_over_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 1.5, "b": [1]}\n{"a": 300}\n')
    source = open_source(str(path), schema={"a": "float64", "b": "list<int8>"})
    assert source.schema == pa.schema([("a", pa.float64()), ("b", pa.list_(pa.int8()))])
    assert read_all(source).codes == []
    assert read_all(open_source(str(path), schema={"a": "uint8", "b": "list<int8>"})).codes == [
        "type_mismatch",
        "bad_number",
    ]


@pytest.mark.parametrize("data", [b'[\n {"a": 1}\n]', b'{\n "a": 1\n}', b'[{"a": 1},\n {"a": 2}]'])
def test_one_document_over_many_lines_is_told_once(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "in.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match="jq -c"):
        open_source(str(path))


def test_utf16_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes('{"a": 1}\n'.encode("utf-16"))
    with pytest.raises(InputError, match="UTF-16; convert it"):
        open_source(str(path))


def make_files(folder: Path) -> tuple[list[str], list[dict[str, Any]]]:
    rows = [{"id": index, "text": f"row {index}"} for index in range(500)]
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    (folder / "a.jsonl").write_bytes(b"".join(lines[:200]) + b"\n")
    (folder / "b.jsonl.gz").write_bytes(
        gzip.compress(b"".join(lines[200:201])) + gzip.compress(b"".join(lines[201:350]))
    )
    (folder / "c.jsonl").write_bytes(b"")
    frames = zstandard.compress(b"".join(lines[350:400])) + zstandard.compress(b"".join(lines[400:]))
    (folder / "d.jsonl.zst").write_bytes(frames)
    return [str(folder / name) for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl", "d.jsonl.zst")], rows


def test_files_follow_each_other_and_positions_are_located(tmp_path: Path) -> None:
    paths, rows = make_files(tmp_path)
    source = open_source(paths)
    found = read_all(source, max_rows=64)
    assert found.values == rows
    assert list(found.rows) == list(range(500))
    assert [source.locate(position) for position in (0, 199, 200, 349, 350, 499)] == [
        (paths[0], 0),
        (paths[0], 199),
        (paths[1], 0),
        (paths[1], 149),
        (paths[3], 0),
        (paths[3], 149),
    ]
    assert [file["name"] for file in source.identity()["files"]] == paths
    assert source.identity() == open_source(paths).identity()


@FUZZ
@given(starts=st.lists(st.integers(0, 500), min_size=1, max_size=5), max_rows=st.integers(1, 90))
def test_reading_after_seeks_equals_reading_straight(tmp_path: Path, starts: list[int], max_rows: int) -> None:
    paths, rows = make_files(tmp_path)
    source = open_source(paths)
    for start in starts:
        chunk = source.read(start, None, max_rows)
        assert (chunk is None) == (start == 500)
        if chunk is not None:
            assert chunk.rows == rows[start : start + len(chunk.rows)]
            assert source.locate(start)[0] in paths
    source.close()


@FUZZ
@given(wanted=st.sets(st.integers(0, 499)), max_rows=st.integers(1, 90))
def test_skipped_positions_are_passed_over(tmp_path: Path, wanted: set[int], max_rows: int) -> None:
    paths, rows = make_files(tmp_path)
    found = read_all(open_source(paths), max_rows=max_rows, skip=lambda position: position not in wanted)
    assert found.rows == {position: rows[position] for position in wanted}
    assert found.end == 500


def test_a_source_that_shrank_is_told(tmp_path: Path) -> None:
    paths, _ = make_files(tmp_path)
    with pytest.raises(InputError, match="ends at row 500, but row 501"):
        open_source(paths).read(501, None, 1)


fragments = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b'{"id": ', b'"text": "', b"}", b'"', b"\n", b"\r\n", b"[", b"]", b",", b":", b"1e999", b"NaN"]),
    st.sampled_from([GOOD + b"\n", b'{"id": 2, "text": "\\u0000"}\n', b'{"id":1,"id":2}\n', b"\xff\xfe", b"\\ud83d"]),
    st.dictionaries(st.sampled_from(["id", "text", "x"]), st.integers() | st.text() | st.lists(st.integers()))
    .map(json.dumps)
    .map(lambda line: line.encode() + b"\n"),
)


@settings(FUZZ, max_examples=examples(300))
@given(data=st.lists(fragments, max_size=25).map(b"".join))
def test_any_bytes_give_consecutive_positions_and_known_codes(tmp_path: Path, data: bytes) -> None:
    try:
        found = read_bytes(tmp_path, GOOD + b"\n" + data)
    except InputError:
        return
    records = sum(1 for line in (GOOD + b"\n" + data).split(b"\n") if line.strip(b" \t\r"))
    assert sorted([*found.rows, *found.unreadable]) == list(range(records)) == list(range(found.end))
    assert set(found.codes) <= DEAD_CODES.keys()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@FUZZ
@given(row=st.dictionaries(st.text(max_size=5), json_values, min_size=1, max_size=4))
def test_a_line_is_decoded_as_the_standard_library_does(tmp_path: Path, row: dict[str, Any]) -> None:
    found = read_bytes(tmp_path, json.dumps(row).encode())
    for value in found.values:
        assert value == row
    assert len(found.values) + len(found.unreadable) == 1
    assert set(found.codes) <= {"type_mismatch", "bad_number", "bad_encoding"}
