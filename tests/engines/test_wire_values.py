from __future__ import annotations

import datetime as dt
import enum
import io
import os
import struct
import sys
import zoneinfo
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol import messages
from penstock.protocol.arrays import EXTENSION, Array, as_native, pack_array
from penstock.protocol.messages import Answer, Answers, Load, Output, Request, Requests, WireRequest, requests_message
from penstock.protocol.values import UnsendableValue, as_extension, from_extension, to_wire
from penstock.protocol.wire import (
    WireError,
    coordinator_decoder,
    decode_answer,
    encode,
    encode_answer,
    encode_answers,
    encode_requests,
    host_decoder,
)

LOAD = Load(0, 0, 0.0, 0.0, 0, 0.0, 0.0)
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
    encoded = msgspec.msgpack.encode(to_wire(value), enc_hook=as_extension)
    return msgspec.msgpack.decode(encoded, ext_hook=from_extension)


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
    row = {"a": numpy.float32(0.5), "c": numpy.bool_(True), "d": [numpy.int64(4)]}
    assert same(through(row), {"a": 0.5, "c": True, "d": [4]})
    row = {"names": numpy.array(["a"]), "flags": numpy.array([True]), "scalar": numpy.array(0.5)}
    assert same(through(row), {"names": ["a"], "flags": [True], "scalar": 0.5})


def test_numpy_arrays_of_numbers_arrive_as_buffers_and_reach_a_function_as_they_left() -> None:
    numpy = pytest.importorskip("numpy")
    square = numpy.arange(6, dtype="float32").reshape(2, 3)
    for array in (
        square,
        square.T,
        square[:, ::2],
        square.astype(">f4"),
        numpy.zeros((0, 3), "int8"),
        square.astype("e"),
    ):
        got = through({"a": array})["a"]
        assert type(got) is Array
        assert (got.dtype, got.shape, got.tolist()) == (array.dtype.name, array.shape, array.tolist())
        request = Request({"a": got, "b": [got]}, id=1)
        (message,) = host_decoder().feed(bytes(encode(requests_message([request]))))
        row = message.items[0].payload  # type: ignore[union-attr]
        assert isinstance(row, dict)
        for native in (row["a"], row["b"][0]):
            assert type(native) is numpy.ndarray and native.dtype == array.dtype.newbyteorder("=")
            assert numpy.array_equal(native, array)
            native += 1  # a function may work in place


def test_without_numpy_a_function_gets_a_memoryview(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    array = Array("float32", (2, 2), struct.pack("<4f", 1, 2, 3, 4))
    native = as_native(array)
    assert isinstance(native, memoryview) and native.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert through(native) == array, "what it gives back keeps the type"
    half = Array("float16", (2,), struct.pack("<2e", 1, 2))
    assert as_native(half) is half and list(half) == [1.0, 2.0]


def test_bytes_that_are_no_array_break_the_protocol() -> None:
    packed = pack_array(Array("int16", (3,), b"abcdef")).data
    assert from_extension(9, memoryview(packed)) == Array("int16", (3,), b"abcdef")
    for broken in (b"", packed[:1], packed[:-1], packed + b"x", b"\xff" + packed[1:], b"\x00\xff" + packed[2:]):
        answer = Answer(1, 1, value=msgspec.msgpack.Ext(9, broken))
        with pytest.raises(WireError):
            coordinator_decoder().feed(bytes(encode(Answers([answer], LOAD))))


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x63\x01", b"\x00\x01", b"\x00\x00", b"\x00\x01" + b"\xff" * 8])
def test_a_kept_answer_with_bytes_that_are_no_array_can_not_be_read(data: bytes) -> None:
    kept = msgspec.msgpack.encode(Answer(1, 1, value=msgspec.msgpack.Ext(EXTENSION, data)))
    with pytest.raises(WireError, match="are no array"):
        decode_answer(kept)


def test_numpy_arrays_that_are_no_buffers_arrive_as_lists_or_say_why_not() -> None:
    numpy = pytest.importorskip("numpy")
    assert through(numpy.zeros((1,) * 9)) == [[[[[[[[[0.0]]]]]]]]], "more dimensions than an Array has"
    with pytest.raises(UnsendableValue, match="is of type longdouble, which a row can't hold"):
        to_wire({"x": numpy.zeros(3, numpy.longdouble)})


def test_a_numpy_array_that_is_nothing_but_shape_can_not_be_sent() -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(UnsendableValue, match="without elements"):
        to_wire({"a": [numpy.zeros((10**9, 0))]})
    assert to_wire(numpy.zeros((0, 4096))).shape == (0, 4096)


@pytest.mark.parametrize("shape", [(10**9, 0), (2**63, 0), (3, 0, 10**9), (0, 2**64 - 1)], ids=str)
def test_an_array_without_elements_has_a_bounded_shape(shape: tuple[int, ...]) -> None:
    """Its lists are made of its shape, which no bytes bound."""
    with pytest.raises(ValueError, match=r"without elements .* 1,048,576 places at most"):
        Array("float32", shape, b"")
    assert Array("float32", (3, 0), b"").tolist() == [[], [], []]
    assert Array("float32", (0, 128_256), b"").tolist() == []


def test_a_matrix_becomes_answers_without_a_copy() -> None:
    matrix = Array("uint8", (2, 3), b"abcdef")
    first, second = matrix.rows()
    assert (first.shape, bytes(first.data), bytes(second.data)) == ((3,), b"abc", b"def")
    assert isinstance(first.data, memoryview) and first.data.obj is matrix.data
    (got,) = coordinator_decoder().feed(bytes(encode(Answers([Answer(1, 1, value=second)], LOAD))))
    assert got.items[0].value == Array("uint8", (3,), b"def")  # type: ignore[union-attr]
    assert decode_answer(encode_answer(Answer(1, 1, value=second))).value == second


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
    request = Request(row, id=1, attempt=1)
    (got,) = host_decoder().feed(bytes(encode(requests_message([request, Request("text", id=2, attempt=1)]))))
    assert isinstance(got, Requests)
    assert same(got.items[0].payload, row)
    assert got.items[1].payload == "text"
    assert request.payload is row, "the caller keeps it for another attempt"


LOAD = Load(0, 0, 0.0, 0.0, 0, 0.0, 0.0)


class Text(str):
    def __str__(self) -> str:
        return "\ud800"


class Shown(str, enum.Enum):  # noqa: UP042 - its text is not its value, as of an enum.StrEnum
    RED = "red"


class NoMoment(dt.datetime):
    """As pandas' NaT: a datetime by its class alone."""

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        return "NaT"


class NoNumber(Decimal):
    def __str__(self) -> str:
        return "many"


class NoIdentity(UUID):
    @property
    def bytes(self) -> bytes:
        return b"short"


class NoZone(dt.tzinfo):
    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        raise LookupError("the zone is not known")


class NoItems(list[Any]):
    def __iter__(self) -> Any:
        raise LookupError("no items")


class NoRepr(str):
    def __repr__(self) -> str:
        raise LookupError("no repr")

    __hash__ = str.__hash__


class NoClass:
    @property
    def __class__(self) -> Any:
        raise LookupError("no class")


@pytest.mark.parametrize(
    "value",
    [
        "\ud800",
        {"a": ["fine", "x\udfff"]},
        {"a\ud800": 1},
        {"a": {"b\ud800": 1}},
        [Text("\ud800")],
        [{NoRepr("x"): 1}],
        [NoMoment(2020, 1, 1)],
        NoNumber("1.5"),
        NoIdentity(int=5),
        dt.datetime(2020, 1, 1, tzinfo=NoZone()),
        NoItems([1]),
        [NoClass()],
        10**4299,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_other_side_could_not_read_is_not_sent(value: Any) -> None:
    with pytest.raises(UnsendableValue):
        to_wire(value)


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (Text("x"), "x"),
        (Shown.RED, "red"),
        (10**4200, 10**4200),
        (Decimal("-Infinity"), Decimal("-Infinity")),
        (dt.time(1, 2, tzinfo=ZoneInfo("Europe/Berlin")), dt.time(1, 2)),
    ],
    ids=["text", "enum", "integer", "decimal", "time"],
)
def test_what_a_class_says_of_itself_changes_no_value(value: Any, arrives: Any) -> None:
    assert same(through(value), arrives)


@pytest.mark.parametrize("nan", ["NaN", "sNaN", "-NaN123"])
def test_decimals_that_are_no_numbers_arrive(nan: str) -> None:
    assert str(through(Decimal(nan))) == nan


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "Pacific/Apia"])
@pytest.mark.parametrize("moment", [dt.datetime.min, dt.datetime.max], ids=["first", "last"])
def test_the_first_and_the_last_moment_have_a_zone_too(moment: dt.datetime, zone: str) -> None:
    arrived = through(moment.replace(tzinfo=ZoneInfo(zone)))
    assert (arrived.replace(tzinfo=None), arrived.tzinfo) == (moment, ZoneInfo(zone))


def test_a_zone_that_is_not_known_here_becomes_its_offset() -> None:
    with io.BytesIO(Path(zone_file("Europe/Berlin")).read_bytes()) as data:
        there = ZoneInfo.from_file(data, key="Mars/Olympus")
    moment = dt.datetime(2026, 7, 1, 12, tzinfo=there)
    arrived = through(moment)
    assert arrived == moment
    assert arrived.utcoffset() == dt.timedelta(hours=2)


def zone_file(key: str) -> str:
    found = [path for folder in zoneinfo.TZPATH if (path := os.path.join(folder, key)) and os.path.exists(path)]
    if not found:
        pytest.skip("this machine has no files of time zones")
    return found[0]


def test_an_answer_that_can_not_be_sent_costs_itself_alone() -> None:
    answers = [Answer(number, 1, "", "", [Output(f"text {number}", "stop", 1)]) for number in range(9)]
    answers[4] = Answer(4, 1, "", "", [Output("\ud800", "stop", 1)])
    answers[7] = Answer(7, 2, "refused", "\ud800 is no prompt")

    def instead(answer: Answer, reason: str) -> Answer:
        return Answer(answer.id, answer.attempt, answer.code or "engine_error", f"not sent: {reason}")

    frames = encode_answers(Answers(answers, LOAD, [11], [(12, 3)]), instead)
    got = coordinator_decoder().feed(b"".join(frames))
    assert all(isinstance(each, Answers) for each in got)
    items = [answer for each in got for answer in each.items]  # type: ignore[union-attr]
    assert [(answer.id, answer.attempt, answer.code) for answer in items] == [
        (number, 2 if number == 7 else 1, {4: "engine_error", 7: "refused"}.get(number, "")) for number in range(9)
    ]
    assert "a lone surrogate" in items[4].message
    assert [each.returned for each in got if each.returned] == [[11]]  # type: ignore[union-attr]
    assert [each.sized for each in got if each.sized] == [[(12, 3)]]  # type: ignore[union-attr]


def test_answers_that_are_too_large_together_go_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_MESSAGE_BYTES", 5000)
    answers = [Answer(number, 1, value="x" * (2000 if number != 3 else 9000)) for number in range(6)]
    frames = encode_answers(Answers(answers, LOAD), lambda answer, reason: Answer(answer.id, 1, "too large", reason))
    got = coordinator_decoder().feed(b"".join(frames))
    items = [answer for each in got for answer in each.items]  # type: ignore[union-attr]
    assert [(answer.id, answer.code) for answer in items] == [(n, "too large" if n == 3 else "") for n in range(6)]
    assert "the limit is 5000" in items[3].message


def test_a_request_that_can_not_be_sent_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_MESSAGE_BYTES", 5000)
    payloads: list[Any] = ["a", {"a": {1}}, "x" * 6000, {"a": "\ud800"}, "\ud800", "b" * 4000, "c" * 4000]
    requests = [WireRequest(number, 1, payload) for number, payload in enumerate(payloads)]
    frames, refused = encode_requests(Requests(requests, [], 1.5))
    got = host_decoder().feed(b"".join(frames))
    assert [request.id for each in got for request in each.items] == [0, 5, 6]  # type: ignore[union-attr]
    assert {request.id: reason[:30] for request, reason in refused} == {
        1: "a is of type set, which a row ",
        2: "a message of 6057 bytes; the l",
        3: "a is not valid Unicode: a lone",
        4: "a text that is not valid Unico",
    }


def test_whatever_a_value_makes_of_its_bytes_is_an_error_of_the_wire() -> None:
    frame = encode(Answers([Answer(1, 1, value=msgspec.msgpack.Ext(3, b"2020-01-01T00:00:00+00:00|../x"))], LOAD))
    (got,) = coordinator_decoder().feed(bytes(frame))
    assert isinstance(got, Answers)
    assert got.items[0].value == dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    frame = encode(Answers([Answer(1, 1, value=msgspec.msgpack.Ext(2, b"NaT"))], LOAD))
    with pytest.raises(WireError, match="NaT"):
        coordinator_decoder().feed(bytes(frame))
