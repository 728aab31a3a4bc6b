"""Functions that can't be imported, written for workers and read by them."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.function_transfer import FunctionFile, read_functions

Function = Callable[[Any], Any]


def sent(*functions: Function | None) -> list[Function | None]:
    file = FunctionFile(functions)
    try:
        return read_functions(os.dup(file.descriptor))
    finally:
        file.close()


def call(function: Function | None, row: Any) -> Any:
    assert function is not None
    return function(row)


class Counter:
    """Not importable by workers, as the classes of a notebook are not."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        self.start += 1
        return {"n": self.start}


def test_functions_arrive_at_their_places_with_what_they_use() -> None:
    table = {"a": 1}

    def look_up(key: str) -> int | None:
        return table.get(key)

    nothing, found, counter = sent(None, lambda row: look_up(row["key"]), Counter(5))
    assert nothing is None
    assert call(found, {"key": "a"}) == 1
    assert call(counter, {}) == {"n": 6}


def test_what_arrives_is_a_copy() -> None:
    seen: list[int] = []
    (append,) = sent(lambda row: seen.append(row) or len(seen))  # type: ignore[func-returns-value]
    assert call(append, 1) == 1 and not seen


def test_several_workers_read_one_file() -> None:
    file = FunctionFile([lambda row: row + 1])
    for _ in range(3):
        (function,) = read_functions(os.dup(file.descriptor))
        assert call(function, 1) == 2
    file.close()


def test_a_value_that_cant_be_sent_is_named() -> None:
    lock, connection = threading.Lock(), sqlite3.connect(":memory:")
    for function, variable, kind in (
        (lambda row: lock.locked(), "lock", "_thread.lock"),
        (lambda row: connection.total_changes, "connection", "sqlite3.Connection"),
    ):
        with pytest.raises(ConfigError, match=rf"it uses '{variable}', a {kind} .*create it inside the function"):
            FunctionFile([None, function])
    connection.close()


def test_an_object_that_cant_be_sent_is_named_by_its_attribute() -> None:
    counter = Counter(0)
    counter.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"the function Counter can't be sent.*it uses 'lock'"):
        FunctionFile([counter])


def test_a_refused_file_leaves_no_descriptor() -> None:
    lock = threading.Lock()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError):
        FunctionFile([lambda row: lock])
    assert len(os.listdir("/proc/self/fd")) == before
