"""Workers of Python steps: what functions may do, and what becomes of their rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.protocol.messages import Answer, EngineConfig
from penstock.testing.harness import HostHarness, LoadingFailed

pytestmark = pytest.mark.process

PYTHON = EngineConfig("python", "python", task="python")
HERE = str(Path(__file__).parent)

FUNCTIONS = ["double", "echo", "tomorrow", "is_even", "count", "fail", "leave", "give_a_set", "sleep", "swallow"]
STEP = {name: step for step, name in enumerate(FUNCTIONS)}


def names(functions: list[str]) -> list[str]:
    return [f"host_functions:{name}" for name in functions]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostHarness]:
    log = tmp_path_factory.mktemp("python") / "log"
    with HostHarness(log, env={"PYTHONPATH": HERE}) as host:
        host.load(PYTHON, functions=names(FUNCTIONS), timeout_s=0.2)
        yield host


def call(host: HostHarness, function: str, row: dict[str, Any]) -> Answer:
    return host.ask([row], step=STEP[function])[0]


def test_a_row_comes_back_as_what_the_function_returned(host: HostHarness) -> None:
    assert call(host, "double", {"x": 21}).value == {"y": 42}
    assert call(host, "is_even", {"x": 21}).value is False
    assert call(host, "count", {"x": 2}).value == [{"n": 0}, {"n": 1}]


def test_rows_keep_their_types_both_ways(host: HostHarness) -> None:
    row = {"when": dt.date(2026, 11, 21), "b": b"\x00", "n": None, "f": 0.5}
    assert call(host, "echo", row).value == row
    assert call(host, "tomorrow", row).value == {"when": dt.date(2026, 11, 22)}


def test_an_exception_kills_the_row_not_the_worker(host: HostHarness) -> None:
    answer = call(host, "fail", {"x": 0})
    assert answer.code == "function_error"
    assert answer.message.startswith("ZeroDivisionError: integer division or modulo by zero (")
    assert "host_functions.py:" in answer.message
    assert call(host, "leave", {}).code == "function_error"
    assert call(host, "double", {"x": 1}).value == {"y": 2}


def test_a_result_that_cant_be_sent_says_why(host: HostHarness) -> None:
    answer = call(host, "give_a_set", {})
    assert answer.code == "function_result"
    assert "y is of type set" in answer.message


def test_a_call_over_its_limit_is_ended(host: HostHarness) -> None:
    answer = call(host, "sleep", {"s": 3600})
    assert answer.code == "function_timeout"
    assert "0.2 s" in answer.message
    assert call(host, "swallow", {}).code == "function_timeout"
    assert call(host, "sleep", {"s": 0}).value == {"s": 0}


def test_a_step_without_a_function_is_a_row_error(host: HostHarness) -> None:
    assert host.ask([{}], step=99)[0].code == "function_error"


def test_many_short_calls_are_answered_once_each(host: HostHarness) -> None:
    answers = host.ask([{"x": number} for number in range(5000)], step=STEP["double"])
    assert [answer.value["y"] for answer in answers] == [2 * number for number in range(5000)]
    assert host.unclaimed == []


def test_what_waits_behind_a_long_call_can_be_taken_back(host: HostHarness) -> None:
    ids = host.request_many([{"s": 0.15}] * 12, step=STEP["sleep"])
    returned = host.take_back(ids)
    answered = [answer.id for answer in host.answers(len(ids) - len(returned))]
    assert sorted(returned + answered) == ids
    assert len(returned) >= 10, "the reply came while a call was running, and no other had begun"


def test_c_code_that_sees_no_signal_costs_the_worker_not_the_run(tmp_path: Path) -> None:
    with HostHarness(tmp_path / "log", env={"PYTHONPATH": HERE}) as host:
        host.load(PYTHON, functions=names(["calculate"]), timeout_s=0.1)
        host.request({"rounds": 1 << 30})
        (answer,) = host.answers(1)
        assert answer.code == "function_timeout"
        assert "could not be interrupted" in answer.message
        assert host.process.wait(120) == 1
        assert "restarting the worker" in host.tail()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("host_functions:nothing", "no attribute 'nothing'"),
        ("host_functions:not_a_function", "is a int, not a function"),
        ("host_functions:later", "async function"),
    ],
)
def test_what_cant_be_called_fails_the_load(tmp_path: Path, name: str, says: str) -> None:
    with HostHarness(tmp_path / "log", env={"PYTHONPATH": HERE}) as host, pytest.raises(LoadingFailed, match=says):
        host.load(PYTHON, functions=[name])
