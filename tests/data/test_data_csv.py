from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from data_support import Everything, read_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.data.open import open_source
from penstock.errors import DEAD_CODES, ConfigError, InputError

FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_bytes(folder: Path, data: bytes, **options: Any) -> Everything:
    path = folder / "in.csv"
    path.write_bytes(data)
    return read_all(open_source(str(path)), **options)


def test_types_are_given_only_where_nothing_is_lost(tmp_path: Path) -> None:
    data = b"int,real,truth,zip,plus,big,mixed,void\n1,2.5,true,007,+1,99999999999999999999,1,\n,3,false,1,2,1,x,\n"
    path = tmp_path / "in.csv"
    path.write_bytes(data)
    source = open_source(str(path))
    types = dict(zip(source.schema.names, map(str, source.schema.types), strict=True))
    assert types == {
        "int": "int64",
        "real": "double",
        "truth": "bool",
        "zip": "string",
        "plus": "string",
        "big": "string",
        "mixed": "string",
        "void": "string",
    }
    first, second = read_all(source).values
    assert first == {
        "int": 1,
        "real": 2.5,
        "truth": True,
        "zip": "007",
        "plus": "+1",
        "big": "99999999999999999999",
        "mixed": "1",
        "void": "",
    }
    assert second["int"] is None and second["real"] == 3.0 and second["truth"] is False


def test_quotes_line_breaks_blank_lines_and_marks(tmp_path: Path) -> None:
    found = read_bytes(tmp_path, b'\xef\xbb\xbfa,b\r\n"x, ""y""\r\nz",1\r\n\r\n5" disk,2\r\n')
    assert found.values == [{"a": 'x, "y"\nz', "b": 1}, {"a": '5" disk', "b": 2}]


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (b"1", "bad_record", "1 field; the header has 2"),
        (b"1,2,3", "bad_record", "3 fields; the header has 2"),
        (b'"x"y,2', "bad_record", "expected after"),
        (b"\xff,2", "bad_encoding", "0xff"),
        (b"t,x", "type_mismatch", "column 'b': expected int64, got 'x'"),
        (b"t,9223372036854775808", "bad_number", "column 'b': expected int64"),
    ],
)
def test_one_bad_record_is_one_unreadable(tmp_path: Path, line: bytes, code: str, words: str) -> None:
    found = read_bytes(tmp_path, b"a,b\n" + b"t,1\n" * 1000 + line + b"\nt,2\n", max_rows=400)
    assert found.codes == [code]
    assert found.unreadable[1000].row == 1000
    assert words in found.unreadable[1000].message
    assert "line 1002" in found.unreadable[1000].message
    assert found.rows[1001] == {"a": "t", "b": 2}
    if code == "type_mismatch":
        assert found.unreadable[1000].input == '{"a":"t","b":"x"}'


def test_a_quotation_mark_that_never_closes_is_one_dead_record(tmp_path: Path) -> None:
    found = read_bytes(tmp_path, b'a,b\nx,1\n"y,2\nz,3\n')
    assert found.codes == ["bad_record"]
    assert "unexpected end of data" in found.unreadable[1].message


@pytest.mark.parametrize("data", [b"", b"a,b\n", b"a,b"])
def test_no_records(tmp_path: Path, data: bytes) -> None:
    assert read_bytes(tmp_path, data).end == 0


def test_a_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'a' twice"):
        read_bytes(tmp_path, b"a,a\n1,2\n")


def test_files_join_by_name_and_missing_columns_are_null(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,x\n")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"c,a\nq,2\n"))
    found = read_all(open_source(str(tmp_path)))
    assert found.values == [{"a": 1, "b": "x", "c": None}, {"a": 2, "b": None, "c": "q"}]


def test_given_types(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"a,b\n1,x\n")
    source = open_source(str(path), schema={"a": "string"})
    assert source.schema == pa.schema([("a", pa.string()), ("b", pa.string())])
    assert read_all(source).values == [{"a": "1", "b": "x"}]
    with pytest.raises(ConfigError, match="no column 'z'"):
        open_source(str(path), schema={"z": "string"})


cells = st.text(st.characters(exclude_characters="\r\x00", exclude_categories=["Cs"]), max_size=6)


@FUZZ
@given(rows=st.lists(st.tuples(cells, cells), max_size=20), start=st.integers(0, 20))
def test_what_the_csv_module_writes_is_read_back(tmp_path: Path, rows: list[tuple[str, str]], start: int) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *rows])
    path = tmp_path / "in.csv"
    path.write_bytes(text.getvalue().encode())
    schema = {"a": "string", "b": "string"}
    expected = [{"a": one, "b": other} for one, other in rows]
    assert read_all(open_source(str(path), schema=schema)).values == expected
    if start <= len(rows):
        assert read_all(open_source(str(path), schema=schema), start=start).values == expected[start:]


@FUZZ
@given(data=st.lists(st.sampled_from([b'"', b",", b"\n", b"\r\n", b"1", b"x", b"\xff", b"\x00", b'""']), max_size=40))
def test_any_bytes_give_consecutive_positions_and_known_codes(tmp_path: Path, data: list[bytes]) -> None:
    found = read_bytes(tmp_path, b"a,b\n" + b"".join(data))
    assert sorted([*found.rows, *found.unreadable]) == list(range(found.end))
    assert set(found.codes) <= DEAD_CODES.keys()
