from __future__ import annotations

import string
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.data.columns import TableBuilder
from penstock.data.limits import MAX_KEYS

KNOWN = pa.schema([("id", pa.int64()), ("answer", pa.string())])


def test_known_columns_keep_their_types_and_others_are_fixed_by_the_first_rows() -> None:
    builder = TableBuilder(KNOWN)
    assert builder.fixed_schema() is None
    table, rejected = builder.build(
        [{"id": 1, "answer": "a", "length": 1, "void": None}, {"id": 2, "answer": None, "length": 2.5, "list": [1]}]
    )
    assert rejected == []
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("id", "int64"),
        ("answer", "string"),
        ("length", "double"),
        ("list", "list<item: int64>"),
        ("void", "string"),
    ]
    assert builder.fixed_schema() == table.schema
    later, rejected = builder.build([{"id": 3, "answer": "c"}])
    assert later.schema == table.schema and rejected == []
    assert later.to_pylist() == [{"id": 3, "answer": "c", "length": None, "void": None, "list": None}]


def test_columns_stand_in_the_order_of_their_steps() -> None:
    known = pa.schema([("b", pa.int64()), ("a", pa.int64()), ("first", pa.string()), ("last", pa.string())])
    row = {"a": 1, "b": 2, "first": "x", "added": 1, "last": "y", "end": 2}
    table, _ = TableBuilder(known).build([{"a": 1, "b": 2, "first": "x", "last": "y"}, row])
    assert table.column_names == ["b", "a", "first", "added", "last", "end"]


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ({"id": "x"}, "id", "expected int64, got string 'x'"),
        ({"id": 2**63}, "id", "can't hold"),
        ({"id": 1.0}, "id", "expected int64, got number 1.0"),
        ({"id": True}, "id", "expected int64, got boolean"),
        ({"id": 1, "answer": b"bytes"}, "answer", "expected string, got bytes"),
        ({"id": 1, "answer": "\ud800"}, "answer", "not valid Unicode"),
        ({"id": 1, "words": ["a", "\ud800"]}, "words", "not valid Unicode"),
        ({"id": 1, "words": ["a", 1]}, "words", "[1] expected string"),
        ({"id": 1, "words": "a"}, "words", "expected list<item: string>"),
        ({"id": 1, "point": {"x": 1, "z": 2}}, "point", "unknown field 'z'"),
        ({"id": 1, "late": 1}, "late", "is not among the columns fixed by the first rows (id, answer"),
    ],
)
def test_a_value_that_does_not_fit_rejects_its_row_alone(row: dict[str, Any], column: str, message: str) -> None:
    builder = TableBuilder(KNOWN)
    first = {"id": 0, "answer": "a", "words": ["w"], "point": {"x": 1, "y": 2.0}}
    builder.build([first])
    table, rejected = builder.build([first, row, {"id": 9}])
    assert table["id"].to_pylist() == [0, 9]
    assert [(index, name) for index, name, _ in rejected] == [(1, column)]
    assert message in rejected[0][2]


def test_the_first_batch_may_hold_rows_that_do_not_fit() -> None:
    table, rejected = TableBuilder(KNOWN).build([{"id": "x", "n": object()}, {"id": 1, "n": 2}])
    assert table.to_pylist() == [{"id": 1, "answer": None, "n": 2}]
    assert [index for index, _, _ in rejected] == [0, 0]


def test_a_fixed_schema_continues() -> None:
    builder = TableBuilder(KNOWN)
    builder.build([{"id": 1, "n": 2}])
    fixed = builder.fixed_schema()
    assert fixed is not None
    again = TableBuilder.from_fixed(pa.ipc.read_schema(fixed.serialize()))
    assert again.build([{"id": 1, "n": 2}])[0].schema == fixed
    assert again.build([{"id": 1, "n": "x"}])[1][0][:2] == (0, "n")
    assert again.build([])[0].schema == fixed


def test_no_rows_fix_nothing() -> None:
    builder = TableBuilder(KNOWN)
    table, rejected = builder.build([])
    assert (table.schema, table.num_rows, rejected) == (KNOWN, 0, [])
    assert builder.fixed_schema() is None


def test_objects_without_fields_are_maps() -> None:
    table, rejected = TableBuilder().build([{"meta": {}}, {"meta": {}}])
    assert (str(table.schema.field("meta").type), rejected) == ("map<string, string>", [])


@pytest.mark.parametrize(
    "value", [[None], [["a", "b"], None], [[None, "b"]], {"x": [None]}, "text", [3], [["a"]], {"x": 3}, {"x": b"y"}]
)
def test_what_is_no_map_rejects_its_row_and_does_not_end_the_process(value: Any) -> None:
    """Arrow aborts at a null among the entries of a map: such a row ended each life of a run."""
    for deep in (value, {"x": value}):
        type_ = pa.map_(pa.string(), pa.string())
        if deep is not value:
            type_ = pa.map_(pa.string(), type_)
        builder = TableBuilder(pa.schema([("meta", type_)]))
        kept: list[Any] = [None, {}, [], [("x", None if deep is value else {"y": "z"})]]
        table, rejected = builder.build([*({"meta": one} for one in kept), {"meta": deep}])
        assert table.num_rows == len(kept)
        assert [(index, name) for index, name, _ in rejected] == [(len(kept), "meta")]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(string.printable) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=5,
)
rows = st.lists(st.dictionaries(st.sampled_from(["id", "answer", "a", "b"]), values), max_size=6)


@given(st.lists(rows, max_size=4))
def test_every_row_is_in_the_table_or_rejected_and_the_schema_stays(batches: list[list[dict[str, Any]]]) -> None:
    builder = TableBuilder(KNOWN)
    for batch in batches:
        before = builder.fixed_schema()
        table, rejected = builder.build(batch)
        assert table.num_rows + len({index for index, _, _ in rejected}) == len(batch)
        assert before is None or table.schema == before
        kept = [row for index, row in enumerate(batch) if index not in {entry[0] for entry in rejected}]
        for row, written in zip(kept, table.to_pylist(), strict=True):
            for name, value in row.items():
                assert same(value, written[name])


def same(value: Any, written: Any) -> bool:
    if isinstance(value, float) and value != value:
        return bool(written != written)
    if isinstance(value, list):
        return len(value) == len(written) and all(map(same, value, written))
    if isinstance(value, dict) and isinstance(written, dict):
        return all(same(value.get(name), inner) for name, inner in written.items()) and value.keys() <= written.keys()
    if isinstance(value, dict):
        return value == dict(written)
    return bool(value == written)


def test_objects_with_too_many_keys_reject_their_rows_and_say_what_to_return() -> None:
    rows: list[dict[str, Any]] = [{"n": row, "ids": {f"user_{row}": 1, f"other_{row}": 2}} for row in range(MAX_KEYS)]
    rows.append({"n": -1, "ids": None})
    table, rejected = TableBuilder().build(rows)
    assert table.column("n").to_pylist() == [-1] and len(rejected) == MAX_KEYS
    assert rejected[0][1] == "ids" and "more than 1,000 distinct keys (user_0, other_0, " in rejected[0][2]
    assert "return a list of {key, value} objects" in rejected[0][2] and len(rejected[0][2]) < 500


def test_columns_that_are_ids_reject_the_rows_after_the_limit_with_short_reasons() -> None:
    known = pa.schema([("n", pa.int64())])
    builder = TableBuilder(known)
    rows = [{"n": row, **{f"user_{100 * row + key}": 1 for key in range(100)}} for row in range(30)]
    table, rejected = builder.build(rows)
    assert table.num_columns == 1 + MAX_KEYS and table.column("n").to_pylist() == list(range(10))
    assert {index for index, _, _ in rejected} == set(range(10, 30)) and len(rejected) == 20 * 3
    assert all(len(message) < 500 for _, _, message in rejected)
    assert "where names are ids, return one list of {key, value} objects" in rejected[0][2]
