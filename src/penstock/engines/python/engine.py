"""The engine of Python steps: calls a user's function with a row, and answers with what it returned.

Functions are numbered by `Request.step`. Each is imported by name, or was sent by value. A call that raises, runs too
long, or returns what can't be sent is a failure of its row, never of the worker:

    function_error     "Type: message (file:line)" of the innermost line in the function's own file
    function_timeout   longer than `timeout_s`
    function_result    the value can't be sent, and where in it the reason stands

Calls run one at a time in the main thread of the host. Short calls come in bunches (`ahead`), so that the hop
between the threads is paid once for many.
"""

from __future__ import annotations

import importlib
import inspect
import os
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from types import GeneratorType
from typing import Any

from penstock.engines.base import Emit, EngineLoadError, MainThreadWorker
from penstock.engines.python.time_limit import OverTime, TimeLimit
from penstock.function_transfer import read_functions
from penstock.protocol.messages import Answer, Capacity, EngineConfig, PythonWork, Request
from penstock.protocol.values import UnsendableValue, escaped, to_wire

__all__ = ["PythonEngine"]

_AHEAD_S = 0.004  # of work at hand beyond the call that runs: a few hops between threads, and little to be late by
_MAX_AHEAD = 1024
_LEARNING_RATE = 0.1  # of the mean time of a call
_MAX_MESSAGE_CHARACTERS = 2000
_OWN_CODE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

Function = Callable[[Any], Any]


class PythonEngine(MainThreadWorker):
    """sent: the descriptor of the functions that were sent by value, by step; one of them goes before the name at its
    place."""

    def __init__(self, work: PythonWork, sent: int | None = None) -> None:
        self._names = work.functions
        self._sent = sent
        self._timeout_s = work.timeout_s
        self._functions: list[Function | None] = []
        self._limit: TimeLimit | None = None
        self._emit: Emit = lambda answers: None
        self._waiting: SimpleQueue[Request] = SimpleQueue()
        self._unbegun: dict[tuple[int, int], Request] = {}  # by id and attempt; the thread that removes it owns it
        self._current: Request | None = None
        self._calls = 0
        self._mean_s = 0.0
        self._stuck = False

    def load(self, config: EngineConfig, emit: Emit, note: Callable[[str], None]) -> Capacity:
        self._emit = emit
        sent = [] if self._sent is None else _read(self._sent)
        for step, name in enumerate(self._names):
            function = sent[step] if step < len(sent) else None
            self._functions.append(function if function is not None or not name else _import(name))
        if self._timeout_s is not None:
            self._limit = TimeLimit(self._timeout_s, self._give_up)
        return Capacity(slots=1, facts={"engine": "python", "functions": sum(map(bool, self._functions))})

    def submit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._unbegun[request.id, request.attempt] = request
            self._waiting.put(request)

    def abort(self, ids: Sequence[int]) -> None:
        self.give_back(ids)  # the running call continues; its answer is not wanted any more

    def give_back(self, ids: Sequence[int]) -> list[int]:
        asked = set(ids)
        keys = [key for key in self._unbegun.copy() if key[0] in asked]
        return [key[0] for key in keys if self._unbegun.pop(key, None) is not None]

    def progress(self) -> int:
        if self._stuck:
            raise RuntimeError(f"a function could not be interrupted after {self._timeout_s} s; restarting the worker")
        return self._calls

    def close(self) -> None:
        """Nothing to give back: the process ends."""

    def ahead(self) -> int:
        return min(_MAX_AHEAD, int(_AHEAD_S / self._mean_s)) if self._mean_s else 0

    def run(self) -> None:
        while True:
            request = self._waiting.get()
            if self._unbegun.pop((request.id, request.attempt), None) is None:
                continue  # given back, or aborted
            began_s = time.monotonic()
            answer = self._answer(request)
            self._mean_s += _LEARNING_RATE * (time.monotonic() - began_s - self._mean_s)
            self._emit((answer,))

    def _answer(self, request: Request) -> Answer:
        self._current = request
        try:
            answer = self._call(request)
        except OverTime:  # also when it rang while an exception of the function was being formatted
            answer = Answer(request.id, request.attempt, "function_timeout", self._over_time())
        self._current = None
        self._calls += 1
        return answer

    def _call(self, request: Request) -> Answer:
        function = self._functions[request.step] if 0 <= request.step < len(self._functions) else None
        if function is None:
            return Answer(request.id, request.attempt, "function_error", f"step {request.step} has no function")
        try:
            value = self._invoke(function, request.payload)
            return Answer(request.id, request.attempt, "", "", [], value)
        except OverTime:
            raise
        except UnsendableValue as error:
            message = escaped(f"the function's return value: {error}")
            return Answer(request.id, request.attempt, "function_result", message)
        except BaseException as error:  # sys.exit() in a function ends its row, not the worker
            return Answer(request.id, request.attempt, "function_error", describe(error, function))

    def _invoke(self, function: Function, row: Any) -> Any:
        if self._limit is None:
            return _evaluate(function, row)
        return self._limit.call(lambda argument: _evaluate(function, argument), row)

    def _over_time(self) -> str:
        return f"the call exceeded its time limit of {self._timeout_s:g} s (timeout_s)"

    def _give_up(self) -> None:
        """The running call can't be interrupted: answer for it; `progress` then ends the replica."""
        current = self._current
        if current is not None:
            self._stuck = True
            message = self._over_time() + ", and could not be interrupted"
            self._emit([Answer(current.id, current.attempt, "function_timeout", message)])


def _evaluate(function: Function, row: Any) -> Any:
    """What the function returns, fit for the wire: that, too, may call code of the user's, and counts as its time."""
    value = function(row)
    return to_wire(list(value) if type(value) is GeneratorType else value)


def _read(sent: int) -> list[Function | None]:
    try:
        return read_functions(sent)
    except (Exception, SystemExit) as error:
        message = f"can't load the functions of the steps: {type(error).__name__}: {error}"
        raise EngineLoadError(message, "bad_model") from error


def _import(name: str) -> Function:
    module, _, qualified = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        message = f"can't import the function {name!r}: {type(error).__name__}: {error}"
        raise EngineLoadError(message, "bad_model") from error
    if not callable(found):
        raise EngineLoadError(f"{name!r} is a {type(found).__name__}, not a function", "bad_model")
    if inspect.iscoroutinefunction(found):
        message = f"{name!r} is an async function; steps call synchronous functions (wrap it in asyncio.run)"
        raise EngineLoadError(message, "bad_model")
    function: Function = found
    return function


def describe(error: BaseException, function: Function) -> str:
    """ "Type: message (file:line)", the line being the innermost one in the function's own file, never Penstock's."""
    own = getattr(getattr(function, "__code__", None), "co_filename", None)
    trace = error.__traceback__
    place, own_place = "", ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        place = f" ({file}:{trace.tb_lineno})" if not file.startswith(_OWN_CODE) else place
        if file == own:
            own_place = place
        trace = trace.tb_next
    try:
        text = str(error)
    except OverTime:
        raise
    except BaseException:  # its own method raises, perhaps SystemExit
        text = "an error that can't be shown"
    return escaped(f"{type(error).__name__}: {text[:_MAX_MESSAGE_CHARACTERS]}{own_place or place}")
