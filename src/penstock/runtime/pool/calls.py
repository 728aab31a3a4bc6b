"""One call of a launched pool: prompts in, generations out, in the order of the prompts or as they come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from penstock.core import events as ev
from penstock.core.events import Event
from penstock.engines.sampling import output_limit
from penstock.errors import PoolFailed
from penstock.protocol.messages import Answer, Request
from penstock.protocol.payloads import guessed_tokens

__all__ = ["Begin", "Call", "Cancel", "CloseLoop", "Generation", "GenerationError"]


class Generation(msgspec.Struct, frozen=True):
    """What a model wrote for one prompt. texts: all n of them; text: the first.

    finish_reasons  stop | length, one per text
    tokens_in, tokens_out  of the prompt, and of all texts together
    logprobs        per text one number per output token, natural log, where they were asked for
    version         of the weights that answered: the `revision` of the model; "" where none was given
    """

    texts: tuple[str, ...]
    finish_reasons: tuple[str, ...]
    tokens_in: int
    tokens_out: int
    logprobs: tuple[tuple[float, ...] | None, ...] = ()
    version: str = ""

    @property
    def text(self) -> str:
        return self.texts[0]

    @property
    def finish_reason(self) -> str:
        return self.finish_reasons[0]


class GenerationError(PoolFailed):
    """Why one prompt has no generation. code: one of penstock.errors.DEAD_CODES; index: of the prompt in its call."""

    def __init__(self, code: str, message: str, index: int) -> None:
        super().__init__(f"prompt {index}: {message} ({code})")
        self.code = code
        self.index = index


Result = Generation | GenerationError


class Begin(Event):
    """A call hands its prompts to the pool's thread."""

    call: Any


class Cancel(Event):
    """A call is not waited for any more."""

    call: Any


class CloseLoop(Event):
    """End the replicas and the thread."""


class Call:
    """Filled by the pools' thread, waited for by others. pool: its name. first_task: its prompts are tasks from there
    on. timeout_s: prompts without an answer by then fail as `expired`; None: they have as long as it takes."""

    def __init__(self, pool: str, requests: list[Request], timeout_s: float | None = None) -> None:
        self.pool, self.requests, self.timeout_s = pool, requests, timeout_s
        self.first_task = 0
        self.results: list[Result | None] = [None] * len(requests)
        self.failure: PoolFailed | None = None
        self._left = len(requests)
        self._done = threading.Event()
        self._finished: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._on_done: Callable[[], None] | None = None
        if not requests:
            self._done.set()

    # ------------------------------------------------------------ by the pool's thread

    def number_from(self, first_task: int) -> None:
        self.first_task = first_task
        for task, request in enumerate(self.requests, first_task):
            request.id = task

    def take(self, index: int, result: Result) -> None:
        self.results[index] = result
        self._left -= 1
        self._finished.put(index)
        if not self._left:
            self._end()

    def fail(self, failure: PoolFailed) -> None:
        """What has no result will get none."""
        if self._done.is_set():
            return
        self.failure = failure
        self._finished.put(-1)
        self._end()

    def _end(self) -> None:
        self._done.set()
        if self._on_done is not None:
            self._on_done()

    @property
    def complete(self) -> bool:
        return not self._left

    # ------------------------------------------------------------ by who waits

    def wait(self) -> list[Result]:
        """All results, in the order of the prompts. Raises PoolFailed where the pool has failed."""
        while not self._done.wait(3600.0):
            pass
        return self.ended()

    def ended(self) -> list[Result]:
        self._raise_failure()
        return [result for result in self.results if result is not None]

    def as_they_come(self) -> Iterator[tuple[int, Result]]:
        for _ in range(len(self.requests)):
            index = self._finished.get()
            if index < 0:
                self._raise_failure()
            result = self.results[index]
            assert result is not None
            yield index, result

    def _raise_failure(self) -> None:
        if self.failure is not None:  # an exception of its own for each thread that raises it
            raise PoolFailed(self.failure.message) from self.failure

    def when_done(self, callback: Callable[[], None]) -> None:
        """Have `callback` called from the pool's thread; at once where it is done already."""
        self._on_done = callback
        if self._done.is_set():
            callback()


def result_of(answer: Answer, request: Request, index: int) -> Result:
    """The generation that an answer holds; the error of its prompt where it has another number of outputs."""
    outputs, sampling = answer.outputs, request.sampling
    expected = 1 if sampling is None else sampling.n
    if len(outputs) != expected:
        message = f"the engine returned {len(outputs)} outputs; expected {expected}"
        return GenerationError("engine_error", message, index)
    return Generation(
        texts=tuple(output.text for output in outputs),
        finish_reasons=tuple(output.finish_reason for output in outputs),
        tokens_in=answer.tokens_in,
        tokens_out=sum(output.tokens_out for output in outputs),
        version=answer.version,
        logprobs=tuple(None if output.logprobs is None else tuple(output.logprobs) for output in outputs),
    )


def submit_event(call: Call, pool: int) -> ev.Submit:
    """The call's requests for the dispatcher, in the order of its prompts."""
    tasks = list(range(call.first_task, call.first_task + len(call.requests)))
    return ev.Submit(
        pool=pool,
        step=pool,  # calls have no steps; what is learnt of their lengths is the pool's
        tasks=tasks,
        orders=tasks,
        tokens_in=[guessed_tokens(request.payload) for request in call.requests],
        tokens_out=[output_limit(request.sampling) for request in call.requests],
        timeout_s=call.timeout_s,
    )
