"""Arrays as columns: from buffers, and back to arrays where rows are read again."""

from __future__ import annotations

import math
import struct
import sys
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.data.arrow_rows import batch_rows
from penstock.data.columns import TableBuilder
from penstock.data.sizes import memory_of
from penstock.data.templates import Expression, Template
from penstock.protocol.arrays import DTYPES, Array


def floats(*values: float, dtype: str = "float32") -> Array:
    return Array(dtype, (len(values),), struct.pack(f"<{len(values)}{DTYPES[dtype]}", *values))


@st.composite
def arrays(draw: st.DrawFn, dtype: str | None = None, dimensions: int | None = None) -> Array:
    dtype = dtype or draw(st.sampled_from(sorted(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=dimensions or 1, max_size=dimensions or 3)))
    size = struct.calcsize(f"<{DTYPES[dtype]}") * math.prod(shape)
    return Array(dtype, shape, draw(st.binary(min_size=size, max_size=size)))


def same(left: Any, right: Any) -> bool:
    """NaN is itself; the bits decide where both are arrays."""
    if isinstance(left, Array) and isinstance(right, Array):
        return left == right
    return repr(left) == repr(right)


@given(st.data())
def test_a_column_holds_the_elements_and_gives_the_arrays_back(data: st.DataObject) -> None:
    dtype, dimensions = data.draw(st.sampled_from(sorted(DTYPES))), data.draw(st.integers(1, 3))
    values = data.draw(st.lists(st.none() | arrays(dtype, dimensions), min_size=1, max_size=6))
    rows = [{"a": value} for value in values]
    table, rejected = TableBuilder().build(rows)
    assert rejected == [] and table.num_rows == len(rows)
    if not any(value is not None for value in values):
        return
    kept = [None if value is None else value.tolist() for value in values]
    inner = table.schema.field("a").type
    for _ in range(dimensions):
        inner = inner.value_type
    assert str(inner).replace("halffloat", "float16").replace("double", "float64") in (
        dtype,
        "float" if dtype == "float32" else dtype,
    )
    assert repr(table["a"].to_pylist()) == repr(kept)
    for batch in table.slice(1).to_batches() if table.num_rows > 1 else table.to_batches():
        again, _, faults = batch_rows(batch, table.schema)
        assert not faults
        expected = values[1:] if table.num_rows > 1 else values
        for got, value in zip([row["a"] for row in again], expected, strict=True):
            assert (got is None) == (value is None)
            if value is not None and got.shape == value.shape:
                assert same(got, value)
            elif value is not None:
                assert got.tolist() == value.tolist() or 0 in value.shape  # lists of nothing have no inner width


@pytest.mark.parametrize(
    ("type_", "good"),
    [
        (pa.list_(pa.float32()), True),
        (pa.list_(pa.float32(), 3), True),
        (pa.list_(pa.float64()), True),
        (pa.large_list(pa.float32()), True),
        (pa.list_(pa.float32(), 4), False),
        (pa.list_(pa.int64()), False),
        (pa.list_(pa.list_(pa.float32())), False),
        (pa.string(), False),
    ],
    ids=str,
)
def test_a_column_with_a_type_takes_the_arrays_that_fit_it(type_: pa.DataType, good: bool) -> None:
    """An older run has fixed its columns as lists of doubles; a step may declare vectors of one width."""
    builder = TableBuilder.from_fixed(pa.schema([("a", type_)]))
    rows: list[dict[str, Any]] = [{"a": floats(0.5, 1.5, -2.0)}, {"a": None}, {"a": floats(1.0, 2.0, 3.0)}]
    table, rejected = builder.build(rows)
    if good:
        assert rejected == []
        assert table["a"].to_pylist() == [[0.5, 1.5, -2.0], None, [1.0, 2.0, 3.0]]
    else:
        assert [index for index, _, _ in rejected] == [0, 2]
        assert "expected" in rejected[0][2]


def test_whole_numbers_fit_a_column_only_where_it_holds_them() -> None:
    builder = TableBuilder.from_fixed(pa.schema([("a", pa.list_(pa.int8()))]))
    table, rejected = builder.build([{"a": floats(1, 2, dtype="int64")}, {"a": floats(1, 300, dtype="int64")}])
    assert table["a"].to_pylist() == [[1, 2]]
    assert [index for index, _, _ in rejected] == [1]


def test_arrays_among_lists_and_within_structs_are_stored_as_lists() -> None:
    rows: list[dict[str, Any]] = [
        {"a": [1.0, 2.0], "b": {"v": floats(1.0)}},
        {"a": floats(0.5), "b": {"v": [2.0]}},
        {"a": [0.25], "b": None},
    ]
    table, rejected = TableBuilder().build(rows)
    assert rejected == []
    assert table.to_pylist() == [
        {"a": [1.0, 2.0], "b": {"v": [1.0]}},
        {"a": [0.5], "b": {"v": [2.0]}},
        {"a": [0.25], "b": None},
    ]


def test_templates_and_expressions_read_an_array_as_a_list() -> None:
    row = {"v": floats(0.5, 0.25), "m": Array("int8", (2, 2), bytes([1, 2, 3, 4]))}
    assert Template("{{ v }}").render(row) == "[0.5, 0.25]"
    assert Template("{{ v[1] }} {{ v | length }} {{ m[1][0] }} {{ v | tojson }}").render(row) == "0.25 2 3 [0.5, 0.25]"
    assert Expression("v[0] > 0.4 and v | max < 1").holds(row)
    assert Expression("v == [0.5, 0.25]").holds(row)


def test_an_array_counts_with_all_its_bytes() -> None:
    vector = Array("float32", (1024,), bytes(4096))
    assert 4096 <= sys.getsizeof(vector) < 4096 + 256
    assert memory_of({"a": vector, "b": [vector]}) > 2 * 4096
