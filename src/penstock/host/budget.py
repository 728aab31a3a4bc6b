"""How many tokens of an engine's KV cache the requests in it will hold, as far as that can be known beforehand.

A request holds its prompt and what it has put out so far. The prompt is not tokenised yet when the host decides, and
the output's length is not known: the host learns both from the answers, the characters of a prompt to a token, and
the mean output of each step. The limit `max_tokens` bounds the second, it is not a forecast of it. An engine that
runs short in spite of the forecast preempts; that costs time, not rows.
"""

from __future__ import annotations

from penstock.protocol.messages import Answer, Request
from penstock.protocol.payloads import characters_of

__all__ = ["TokenBudget"]

_CHARACTERS_PER_TOKEN = 3.0  # to begin with: on the safe side of English (4), near code and other scripts
_OUTPUT_TOKENS = 256  # to begin with, where max_tokens does not say less
_LEARNING_RATE = 0.05  # of the moving means: about the last 20 answers


class TokenBudget:
    """Counts the forecast tokens of the requests in the engine against its `kv_tokens`; 0 means no limit."""

    def __init__(self, kv_tokens: int) -> None:
        self._limit = kv_tokens
        self._in_use = 0
        self._held: dict[int, tuple[int, int]] = {}  # id -> forecast tokens, characters of the prompt
        self._characters_per_token = _CHARACTERS_PER_TOKEN
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

    def _forecast(self, request: Request) -> tuple[int, int]:
        characters = characters_of(request.payload)
        sampling = request.sampling
        expected = self._output_of_step.get(request.step, _OUTPUT_TOKENS)
        branches = 1
        if sampling is not None:
            branches = sampling.n
            if sampling.max_tokens is not None:
                expected = sampling.max_tokens if sampling.ignore_eos else min(expected, sampling.max_tokens)
        return int(characters / self._characters_per_token + branches * expected) + 1, characters

    def _learn(self, request: Request, answer: Answer, characters: int) -> None:
        if answer.tokens_in and characters:
            ratio = characters / answer.tokens_in
            self._characters_per_token += _LEARNING_RATE * (ratio - self._characters_per_token)
        if answer.outputs:
            mean = sum(output.tokens_out for output in answer.outputs) / len(answer.outputs)
            known = self._output_of_step.setdefault(request.step, mean)
            self._output_of_step[request.step] = known + _LEARNING_RATE * (mean - known)
