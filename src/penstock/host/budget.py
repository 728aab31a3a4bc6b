"""How many tokens of an engine's KV cache the requests in it will hold, as far as that can be known beforehand.

A request holds its prompt and what it has put out so far. The prompt is not tokenised yet when the host decides, and
the output's length is not known: the host learns both, the bytes of text to a token from the engine's tokenizer or from
the answers, and the mean output of each step. The limit `max_tokens` bounds the second, it is not a forecast of it. An
engine that runs short in spite of the forecast preempts; that costs time, not rows.
"""

from __future__ import annotations

from penstock.protocol.messages import Answer, Request
from penstock.protocol.payloads import text_bytes

__all__ = ["TokenBudget"]

_BYTES_PER_TOKEN = 3.0  # to begin with: on the safe side of English (4), near code and other scripts
_OUTPUT_TOKENS = 256  # to begin with, where max_tokens does not say less
_LEARNING_RATE = 0.05  # of the moving means: about the last 20 answers


class TokenBudget:
    """Counts the forecast tokens of the requests in the engine against its `kv_tokens`; 0 means no limit."""

    def __init__(self, kv_tokens: int) -> None:
        self._limit = kv_tokens
        self._in_use = 0
        self._held: dict[int, tuple[int, int]] = {}  # id -> forecast tokens, bytes of the prompt
        self._bytes_per_token = _BYTES_PER_TOKEN
        self._counted: set[int] = set()  # of those held, whose prompt the engine has counted
        self._output_of_step: dict[int, float] = {}

    def admits(self, request: Request) -> bool:
        """Whether the request fits beside those inside. One alone always does: the engine judges its size."""
        if not self._limit or not self._held:
            return True
        return self._in_use + self._forecast(request)[0] <= self._limit

    def take(self, request: Request) -> None:
        if not self._limit:
            return
        forecast = self._forecast(request)
        self._held[request.id] = forecast
        self._in_use += forecast[0]

    def release(self, request: Request, answer: Answer | None = None) -> None:
        """The request left the engine; its answer teaches what the next ones will take."""
        held = self._held.pop(request.id, None)
        if held is None:
            return
        self._in_use -= held[0]
        if answer is not None and not answer.code:
            self._learn(request, answer, held[1])
        self._counted.discard(request.id)

    def _forecast(self, request: Request) -> tuple[int, int]:
        size = text_bytes(request.payload)
        sampling = request.sampling
        expected = self._output_of_step.get(request.step, _OUTPUT_TOKENS)
        branches = 1
        if sampling is not None:
            branches = sampling.n
            if sampling.max_tokens is not None:
                expected = sampling.max_tokens if sampling.ignore_eos else min(expected, sampling.max_tokens)
        return self._prompt_tokens(size) + int(branches * expected), size

    def counted(self, number: int, tokens: int) -> None:
        """The engine has tokenised the prompt of a request: it holds that, and the next ones are forecast by it."""
        held = self._held.get(number)
        if held is None or number in self._counted:
            return
        forecast, size = held
        change = tokens - self._prompt_tokens(size)
        self._held[number] = (forecast + change, size)
        self._in_use += change
        self._counted.add(number)
        self._learn_prompt(size, tokens)

    def _prompt_tokens(self, size: int) -> int:
        return int(size / self._bytes_per_token) + 1

    def _learn_prompt(self, size: int, tokens: int) -> None:
        if size and tokens:
            self._bytes_per_token += _LEARNING_RATE * (size / tokens - self._bytes_per_token)

    def _learn(self, request: Request, answer: Answer, size: int) -> None:
        if request.id not in self._counted:
            self._learn_prompt(size, answer.tokens_in)
        if answer.outputs:
            mean = sum(output.tokens_out for output in answer.outputs) / len(answer.outputs)
            known = self._output_of_step.setdefault(request.step, mean)
            self._output_of_step[request.step] = known + _LEARNING_RATE * (mean - known)
