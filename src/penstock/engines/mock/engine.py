"""An engine without a model: real processes, a cost model, faults on demand, and answers that can be predicted.

`Model("mock:NAME", engine_options={...})`:

    slots              requests at a time (1)
    ms_per_row         milliseconds that a request takes (0), and
    ms_per_token       for each token of its outputs (0)
    load_ms            milliseconds that loading takes (0)
    seed               enters the text of the answers (0)
    eos_median_tokens  above 0: an output ends with "stop" at a log-normal length drawn from the prompt (0)
    eos_sigma          the deviation of that length's logarithm (0)
    fail_on            a request whose prompt contains this is refused
    crash_on           the process kills itself when such a request starts
    hang_on            the whole replica stops answering when such a request starts; heartbeats continue
    dimension          of the vectors of a text (384)
    oom_over_tokens    the process ends when the tokens executing (prompts and outputs) exceed this

A request takes one slot. Slots keep an absolute schedule (see `schedule`), so that the time a sleep overshoots is
not added up: what a replica achieves is a matter of the dispatcher, not of the timer. `stop` strings are ignored.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from penstock.engines.base import Emit, EngineLoadError, Sleeper
from penstock.engines.mock.schedule import SlotSchedule
from penstock.engines.mock.text import MAX_OUTPUT_TOKENS, MockWriter, parts_of, prompt_text
from penstock.engines.mock.vectors import value_of
from penstock.engines.sampling import RowFault
from penstock.protocol.messages import Answer, AnswerPart, Capacity, EngineConfig, Output, Request

__all__ = ["MockEngine", "MockOptions"]


class MockOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    slots: int = 1
    ms_per_row: float = 0.0
    ms_per_token: float = 0.0
    load_ms: float = 0.0
    seed: int = 0
    eos_median_tokens: float = 0.0
    eos_sigma: float = 0.0
    fail_on: str | None = None
    crash_on: str | None = None
    hang_on: str | None = None
    oom_over_tokens: int | None = None
    wake_ms: float | None = None
    load_oom_over_seqs: int | None = None
    dimension: int = 384

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError(f"`slots` is {self.slots}; it must be at least 1")
        for name in ("ms_per_row", "ms_per_token", "load_ms", "eos_median_tokens", "eos_sigma"):
            if not 0 <= getattr(self, name) < 1e12:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be a number of at least 0")


class MockEngine(Sleeper):
    """See the module. Without a cost a request is answered within `submit`."""

    def __init__(self) -> None:
        self._options = MockOptions()
        self._writer = MockWriter()
        self._emit: Emit = lambda answers: None
        self._schedule: SlotSchedule | None = None
        self._tokens: dict[int, int] = {}  # of the requests executing, kept where a limit is set
        self._answered = 0
        self._hung = False
        self._marks = False

    def load(self, config: EngineConfig, emit: Emit, note: Callable[[str], None]) -> Capacity:
        self._options = options = _options(config.engine_options)
        self._writer = MockWriter(options.seed, options.eos_median_tokens, options.eos_sigma)
        self._marks = any((options.fail_on, options.crash_on, options.hang_on))
        self._emit = emit
        if options.load_oom_over_seqs is not None and (config.max_num_seqs or 0) > options.load_oom_over_seqs:
            reason = f"{config.max_num_seqs} sequences; the limit is {options.load_oom_over_seqs} (load_oom_over_seqs)"
            raise EngineLoadError(f"out of memory: {reason}", code="out_of_memory")
        if options.load_ms:
            note(f"sleeping {options.load_ms:g} ms instead of loading")
            time.sleep(options.load_ms / 1000)
        if options.ms_per_row or options.ms_per_token:
            self._schedule = SlotSchedule(options.slots, self._finish)
        return self._capacity()

    def _capacity(self) -> Capacity:
        options = self._options
        return Capacity(slots=options.slots, facts={"engine": "mock"}, can_sleep=options.wake_ms is not None)

    def sleep(self) -> None:
        pass  # it holds nothing

    def wake(self) -> Capacity:
        time.sleep((self._options.wake_ms or 0.0) / 1000)
        return self._capacity()

    def submit(self, requests: Sequence[Request]) -> None:
        answers: list[Answer | AnswerPart] = []
        for request in requests:
            if self._hung:
                return
            answers += self._start(request)
        if answers:
            self._finish(answers)

    def abort(self, ids: Sequence[int]) -> None:
        if self._schedule is not None:
            self._schedule.cancel(ids)
        for number in ids:
            self._tokens.pop(number, None)

    def progress(self) -> int:
        if self._schedule is not None and not self._hung:
            return self._answered + self._schedule.progress()
        return self._answered

    def close(self) -> None:
        if self._schedule is not None:
            self._schedule.close()

    def _start(self, request: Request) -> Sequence[Answer | AnswerPart]:
        """Begin a request; its parts and its answer where they are ready at once."""
        prompt = prompt_text(request.payload)
        if self._marks:
            refusal = self._meet_mark(prompt)
            if refusal is not None:
                return [Answer(request.id, request.attempt, "refused", refusal)]
            if self._hung:
                return ()
        refusal = _refusal(request)
        if refusal is not None:
            return [Answer(request.id, request.attempt, "refused", refusal)]
        tokens_in = len(prompt.split())
        outputs: list[Output] = []
        value = None
        if request.options is None or request.sampling is not None:
            outputs = self._writer.write(prompt, request.sampling)
        else:
            try:
                value = value_of(request, self._options.seed, self._options.dimension)
            except RowFault as fault:
                return [fault.answer(request)]
        answer = Answer(request.id, request.attempt, "", "", outputs, value, tokens_in)
        if self._options.oom_over_tokens is not None:
            self._hold(request.id, tokens_in + _tokens_out(outputs))
        parts = parts_of(request, outputs) if request.listener else []
        if self._schedule is None:
            return [*parts, answer]
        row_s, token_s = self._options.ms_per_row / 1000, self._options.ms_per_token / 1000
        timed = [(row_s + at * token_s, part) for at, part in enumerate(parts)]
        self._schedule.add(answer, request.arrived_s, row_s + token_s * _tokens_out(outputs), timed)
        return ()

    def _finish(self, answers: list[Answer | AnswerPart]) -> None:
        self._answered += len(answers)
        if self._tokens:
            for answer in answers:
                if isinstance(answer, Answer):
                    self._tokens.pop(answer.id, None)
        self._emit(answers)

    def _meet_mark(self, prompt: str) -> str | None:
        options = self._options
        if options.crash_on and options.crash_on in prompt:
            os.kill(os.getpid(), signal.SIGKILL)
        if options.hang_on and options.hang_on in prompt:
            self._hung = True
            if self._schedule is not None:
                self._schedule.close()
        elif options.fail_on and options.fail_on in prompt:
            return f"the prompt contains {options.fail_on!r} (fail_on)"
        return None

    def _hold(self, number: int, tokens: int) -> None:
        self._tokens[number] = tokens
        in_use, limit = sum(self._tokens.values()), self._options.oom_over_tokens
        if limit is not None and in_use > limit:
            print(f"out of memory: {in_use} tokens executing, the limit is {limit} (oom_over_tokens)", file=sys.stderr)
            sys.stderr.flush()
            os._exit(1)


def _options(given: dict[str, Any]) -> MockOptions:
    try:
        return msgspec.convert(given, MockOptions)
    except msgspec.ValidationError as error:
        known = ", ".join(MockOptions.__struct_fields__)
        raise EngineLoadError(f"engine_options of a mock: {error} (known: {known})", code="bad_model") from None


def _refusal(request: Request) -> str | None:
    sampling = request.sampling
    if sampling is None:
        return None
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        return f"max_tokens must be at least 1; it is {sampling.max_tokens}"
    if sampling.max_tokens is not None and sampling.max_tokens > MAX_OUTPUT_TOKENS:
        return f"max_tokens is {sampling.max_tokens}; the mock engine writes at most {MAX_OUTPUT_TOKENS}"
    if sampling.n < 1:
        return f"n must be at least 1; it is {sampling.n}"
    return None


def _tokens_out(outputs: list[Output]) -> int:
    return sum(output.tokens_out for output in outputs)
