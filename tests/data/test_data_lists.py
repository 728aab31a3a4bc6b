from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from data_support import read_all

from penstock.data.columns import TableBuilder
from penstock.data.open import open_rows
from penstock.errors import InputError

ROWS: list[dict[str, Any]] = [
    {"id": 1, "when": dt.datetime(2020, 1, 1), "price": Decimal("1.50"), "raw": b"\xff", "tags": ("a", "b")},
    {"id": 2, "when": None, "price": Decimal("2.25"), "raw": b"", "tags": []},
    {"id": 3},
]


def test_rows_keep_their_values_and_get_their_types() -> None:
    source = open_rows(ROWS)
    assert [str(type_) for type_ in source.schema.types] == [
        "int64",
        "timestamp[us]",
        "decimal128(3, 2)",
        "binary",
        "list<item: string>",
    ]
    found = read_all(source, max_rows=2)
    assert found.values[:2] == ROWS[:2]
    assert found.values[2] == {"id": 3, "when": None, "price": None, "raw": None, "tags": None}
    table, rejected = TableBuilder(source.schema).build(found.values)
    assert rejected == []
    assert table["price"].to_pylist() == [Decimal("1.50"), Decimal("2.25"), None]


def test_the_rows_given_are_not_changed() -> None:
    rows = [{"a": 1}, {"b": 2}]
    read_all(open_rows(rows))
    assert rows == [{"a": 1}, {"b": 2}]


def test_seeking_skipping_and_locating() -> None:
    source = open_rows([{"a": index} for index in range(10)])
    assert source.total_rows == 10
    assert read_all(source, start=7).values == [{"a": 7}, {"a": 8}, {"a": 9}]
    assert list(read_all(source, skip=lambda position: position % 2 == 0).rows) == [1, 3, 5, 7, 9]
    assert source.locate(4) == ("list", 4)


def test_a_late_type_is_one_unreadable_row() -> None:
    rows: list[dict[str, Any]] = [{"a": 1}] * 1000 + [{"a": "x"}, {"a": 2**63}, {"a": 2}]
    found = read_all(open_rows(rows), max_rows=1003)
    assert found.codes == ["type_mismatch", "bad_number"]
    assert found.unreadable[1000].source == "list"
    assert found.unreadable[1000].input == '{"a":"x"}'
    assert found.rows[1002] == {"a": 2}


def test_identity_is_of_the_values() -> None:
    assert open_rows(ROWS).identity() == open_rows([dict(row) for row in ROWS]).identity()
    changed = [{**row, "id": 9} for row in ROWS]
    assert open_rows(changed).identity() != open_rows(ROWS).identity()
    assert open_rows([{"a": 2**70}]).identity() != open_rows([{"a": 2**71}]).identity()


@pytest.mark.parametrize("rows", [[1], [{"a": 1}, None], [{1: 2}]])
def test_what_is_no_row_is_refused(rows: list[Any]) -> None:
    with pytest.raises(InputError, match="is not a dict of column names"):
        open_rows(rows)


def test_values_that_no_column_holds_are_refused() -> None:
    with pytest.raises(InputError, match="values of type object can't be stored"):
        open_rows([{"a": object()}])


def test_no_rows() -> None:
    source = open_rows([])
    assert source.schema == pa.schema([])
    assert read_all(source).end == 0


class Loud(str):
    def __str__(self) -> str:
        raise LookupError("no text")


class Hidden:
    def __repr__(self) -> str:
        raise LookupError("no repr")


class NoItems(list[Any]):
    def __iter__(self) -> Any:
        raise LookupError("no items")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("odd", "code"),
    [
        ({"a": "\ud800"}, "bad_encoding"),
        ({"b": [{"c": "\ud800"}]}, "bad_encoding"),
        ({"b": [{"c": "y", "d\ud800": 1}]}, "bad_encoding"),
        ({"a\ud800": "x"}, "bad_encoding"),
        ({"b": [{1: 2}]}, "type_mismatch"),
        ({"a": Hidden()}, "type_mismatch"),
        ({"b": [{"c": Hidden()}]}, "type_mismatch"),
        ({"b": NoItems([{"c": "y"}])}, "bad_record"),
        ({"n": 10**5000}, "bad_number"),
        ({"b": nested(5000)}, "too_deep"),
        ({"b": LOOP}, "too_deep"),
    ],
    ids=["text", "inner", "key", "name", "number", "hidden", "inside", "items", "huge", "deep", "loop"],
)
@pytest.mark.parametrize("place", [0, 1500], ids=["sampled", "late"])
def test_a_value_that_no_other_source_could_have_is_one_unreadable_row(
    odd: dict[str, Any], code: str, place: int
) -> None:
    rows: list[dict[str, Any]] = [{"a": "x", "b": [{"c": "y"}], "n": index} for index in range(1600)]
    rows.insert(place, odd)
    source = open_rows(rows)
    assert set(source.schema.names) == {"a", "b", "n"}
    found = read_all(source, max_rows=1000)
    assert found.codes == [code]
    assert found.unreadable[place].message.startswith(f"row {place}: ")
    assert found.values == [row for row in rows if row is not odd]
    for text in (found.unreadable[place].message, found.unreadable[place].input, source.identity()["hash"]):
        text.encode()


def test_subclasses_of_plain_types_are_plain_values() -> None:
    numpy = pytest.importorskip("numpy")
    rows = [{"a": Loud("x"), "f": numpy.float64(0.5), "s": [numpy.str_("y")]}, {"a": "z", "f": 1.5, "s": []}]
    source = open_rows(rows)
    found = read_all(source)
    assert [type(value) for value in found.values[0].values()] == [str, float, list]
    table, rejected = TableBuilder(source.schema).build(found.values)
    assert rejected == []
    assert table.to_pylist() == [{"a": "x", "f": 0.5, "s": ["y"]}, {"a": "z", "f": 1.5, "s": []}]


def test_a_table_takes_subclasses_for_what_they_are() -> None:
    table, rejected = TableBuilder(pa.schema([("a", pa.string())])).build([{"a": Loud("x")}, {"a": "y"}])
    assert (table["a"].to_pylist(), rejected) == (["x", "y"], [])
