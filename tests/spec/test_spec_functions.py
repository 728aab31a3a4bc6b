"""References to functions, and the digest that a resume compares."""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import spec_functions
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.spec.digest import function_digest
from penstock.spec.functions import FunctionRef, importable


def holding(value: Any) -> Callable[[Any], Any]:
    """A function whose closure holds `value`."""
    return lambda row: value


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Cutter:
    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"cut": row["text"][: self.length]}


class TestDigest:
    @given(plain)
    def test_equal_closures_have_equal_digests(self, value: Any) -> None:
        import copy

        assert function_digest(holding(value)) == function_digest(holding(copy.deepcopy(value)))

    @given(plain, plain)
    def test_other_closures_have_other_digests(self, left: Any, right: Any) -> None:
        if repr(left) != repr(right) and left != right:
            assert function_digest(holding(left)) != function_digest(holding(right))

    @given(st.dictionaries(st.text(), st.integers()))
    def test_the_order_of_a_dict_does_not_matter(self, value: dict[str, int]) -> None:
        assert function_digest(holding(value)) == function_digest(holding(dict(reversed(value.items()))))

    def test_code_constants_defaults_and_nested_code_count(self) -> None:
        functions: list[Callable[..., Any]] = [
            lambda row: row["a"],
            lambda row: row["b"],
            lambda row, k=1: row["a"],
            lambda row, k=2: row["a"],
            lambda row, *, k=2: row["a"],
            lambda row: [x + 1 for x in row],
            lambda row: [x + 2 for x in row],
            lambda row: row.a,
            lambda row: row.b,
            lambda row: lambda: 1,
            lambda row: lambda: True,
            lambda row: 1.0,
        ]
        assert len({function_digest(function) for function in functions}) == len(functions)

    def test_lines_files_and_docstrings_do_not_count(self) -> None:
        def first(row: Any) -> Any:
            """One."""
            return row

        def second(row: Any) -> Any:
            """Another."""

            return row

        assert function_digest(first) == function_digest(second)

    @pytest.mark.parametrize(
        ("left", "right"),
        [
            (Colour.RED, Colour.BLUE),
            (re.compile("a" * 300), re.compile("a" * 301)),
            (datetime.date(2026, 1, 1), datetime.date(2026, 1, 2)),
            (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
            (pathlib.PurePosixPath("a"), pathlib.PurePosixPath("b")),
            ({1, 2}, {1, 3}),
            (range(3), range(4)),
            (bytearray(b"a"), bytearray(b"b")),
            (len, max),
            (int, str),
            (functools.partial(int, base=2), functools.partial(int, base=3)),
            ("a".startswith, "b".startswith),
            (re, enum),
            (Cutter(1), Cutter(2)),
        ],
    )
    def test_values_of_many_types(self, left: Any, right: Any) -> None:
        assert function_digest(holding(left)) == function_digest(holding(left))
        assert function_digest(holding(left)) != function_digest(holding(right))

    def test_arrays(self) -> None:
        numpy = pytest.importorskip("numpy")
        left, right = numpy.zeros(10_000), numpy.zeros(10_000)
        assert function_digest(holding(left)) == function_digest(holding(right))
        right[5_000] = 1
        assert function_digest(holding(left)) != function_digest(holding(right))

    def test_tables(self) -> None:
        import pandas as pd
        import polars as pl
        import pyarrow as pa

        makers: list[Callable[[dict[str, list[Any]]], Any]] = [pd.DataFrame, pl.DataFrame, pa.table]
        for make in makers:
            one, same, other = ({"a": [1, 2], "b": ["x", last]} for last in "yyz")
            digests = [function_digest(holding(make(columns))) for columns in (one, same, other)]
            assert digests[0] == digests[1] != digests[2], make

    def test_callable_objects(self) -> None:
        assert function_digest(Cutter(3)) == function_digest(Cutter(3))
        assert function_digest(Cutter(3)) != function_digest(Cutter(4))

    def test_cycles_end(self) -> None:
        def make(step: int) -> Callable[[int], int]:
            def down(n: int) -> int:
                return n if n < 0 else down(n - step)

            return down

        looped: list[Any] = [1]
        looped.append(looped)
        assert function_digest(make(1)) == function_digest(make(1)) != function_digest(make(2))
        assert function_digest(holding(looped)) == function_digest(holding(looped))

    def test_a_value_that_tells_nothing_is_refused_with_the_mend(self) -> None:
        with pytest.raises(ConfigError, match='version="1"'):
            function_digest(holding(threading.Lock()))

    def test_data_nested_too_deep_is_refused(self) -> None:
        deep: list[Any] = []
        for _ in range(5_000):
            deep = [deep]
        with pytest.raises(ConfigError, match="too deep"):
            function_digest(holding(deep))

    def test_another_process_with_another_hash_seed_agrees(self) -> None:
        program = (
            "from penstock.spec.digest import function_digest\n"
            "words = {'a', 'b', 'c', 'd'}\n"
            "def make(words): return lambda row: row['a'] in {'x', 'y', 'z'} or words\n"
            "print(function_digest(make(words)))\n"
        )
        seen = set()
        for seed in ("1", "2"):
            environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
            done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
            seen.add(done.stdout)
        assert len(seen) == 1


class TestReference:
    def test_importable_functions_go_by_name(self) -> None:
        reference = FunctionRef.of(spec_functions.add_length)
        assert reference == FunctionRef("spec_functions:add_length")
        assert reference.is_importable and reference.resolve() is spec_functions.add_length
        assert FunctionRef("spec_functions:add_length").digest() == reference.digest()

    def test_static_methods_are_importable(self) -> None:
        assert importable(spec_functions.Tools.split) == "spec_functions:Tools.split"

    def test_lambdas_are_not_and_are_told_apart_by_their_code(self) -> None:
        one, same, other = FunctionRef.of(lambda r: r), FunctionRef.of(lambda r: r), FunctionRef.of(lambda r: not r)
        assert not one.is_importable and "<lambda>" in one.name
        assert one == same != other
        assert one.digest() == same.digest() != other.digest()

    def test_a_function_that_pretends_to_be_another_is_not_importable(self) -> None:
        @functools.wraps(spec_functions.add_length)
        def wrapper(row: dict[str, Any]) -> dict[str, Any]:
            return spec_functions.add_length(row)

        assert importable(wrapper) is None

    def test_main_is_not_importable(self) -> None:
        def function() -> None: ...

        function.__module__, function.__qualname__ = "__main__", "function"
        assert importable(function) is None

    def test_version_is_the_whole_identity(self) -> None:
        assert FunctionRef.of(lambda r: 1, "3").digest() == FunctionRef("no.module:f", "3").digest() == "version 3"
        assert FunctionRef.of(holding(threading.Lock()), "3").code is None

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("no_such_module:f", "can't import 'no_such_module'"),
            ("spec_functions:add_lenth", "has no function 'add_lenth'; did you mean 'add_length'?"),
            ("spec_functions:Tools.spilt", "has no function 'Tools.spilt'; did you mean 'split'?"),
            ("spec_functions:NOT_A_FUNCTION", "is 3, not a function"),
        ],
    )
    def test_names_that_lead_nowhere(self, name: str, message: str) -> None:
        with pytest.raises(ConfigError, match=re.escape(message)):
            FunctionRef(name).resolve()
