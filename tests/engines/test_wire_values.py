from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engines.messages import Request, Requests
from penstock.engines.values import UnsendableValue, from_extension, to_wire
from penstock.engines.wire import encode, host_decoder

ZONES = st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=30)), ZoneInfo("Europe/Berlin")])

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.datetimes(),
    st.datetimes(dt.datetime(1950, 1, 1), dt.datetime(2100, 1, 1), timezones=ZONES, allow_imaginary=False),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


def through(value: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(to_wire(value)), ext_hook=from_extension)


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, dt.datetime) and left.tzinfo is not None:
        return bool(left == right and left.utcoffset() == right.utcoffset())
    return bool(left == right)


@given(VALUES)
def test_values_arrive_with_their_types(value: Any) -> None:
    assert same(through(value), value)


@given(VALUES)
def test_what_is_fit_for_the_wire_stays_as_it_is(value: Any) -> None:
    once = to_wire(value)
    assert to_wire(once) is once


def test_a_zone_keeps_its_name() -> None:
    moment = dt.datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    arrived = through(moment)
    assert arrived.tzinfo == ZoneInfo("Europe/Berlin")
    assert arrived.utcoffset() == moment.utcoffset() == dt.timedelta(hours=1)


def test_tuples_and_subclasses_arrive_as_the_plain_types() -> None:
    class Text(str):
        pass

    class Number(int):
        pass

    assert same(through((1, (2, Text("x")), Number(3))), [1, [2, "x"], 3])
    assert same(through({"n": Number(2**80)}), {"n": 2**80})


def test_numpy_values_arrive_as_what_they_hold() -> None:
    numpy = pytest.importorskip("numpy")
    row = {"a": numpy.float32(0.5), "b": numpy.arange(3), "c": numpy.bool_(True), "d": [numpy.int64(4)]}
    assert same(through(row), {"a": 0.5, "b": [0, 1, 2], "c": True, "d": [4]})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": {"b": [1, {2}]}}, "a.b[1] is of type set"),
        ({"a": object()}, "a is of type object"),
        ({1: "x"}, "the key 1"),
        (iter([]), "the value is of type list_iterator"),
        ({"n": 10**5000}, "is too long to be sent"),
    ],
)
def test_what_has_no_form_says_where_it_stands(value: Any, says: str) -> None:
    with pytest.raises(UnsendableValue) as refused:
        to_wire(value)
    assert says in str(refused.value)


def test_a_value_that_holds_itself_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnsendableValue, match="nested deeper"):
        to_wire(loop)


def test_rows_of_python_steps_travel_in_requests() -> None:
    row = {"when": dt.date(2026, 11, 21), "id": UUID(int=5), "price": Decimal("1.50")}
    request = Request(1, 1, row)
    (got,) = host_decoder().feed(bytes(encode(Requests([request, Request(2, 1, "text")], []))))
    assert isinstance(got, Requests)
    assert same(got.items[0].payload, row)
    assert got.items[1].payload == "text"
    assert request.payload is row, "the caller keeps it for another attempt"
