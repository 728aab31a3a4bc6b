"""One sampled continuation on its way: its tokens, when it ends, and the text it ends with."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from penstock.engines.sampling import Resolved
from penstock.protocol.messages import Answer, Output, Request

__all__ = ["Job", "Row", "rows_of"]

Decode = Callable[[Sequence[int]], str]


class Row:
    """A prompt and its continuation so far. `next_position` is where the newest token's keys and values belong."""

    __slots__ = (
        "counts", "decode", "eos_ids", "finish_reason", "index", "job", "logprobs", "output_ids", "prompt_ids",
        "random", "sampling", "scan",
    )  # fmt: skip

    def __init__(self, job: Job, index: int, eos_ids: frozenset[int], decode: Decode) -> None:
        self.job = job
        self.index = index
        self.prompt_ids = job.prompt_ids
        self.sampling = job.sampling
        self.eos_ids = eos_ids
        self.decode = decode
        self.restart()

    def restart(self) -> None:
        """Forget everything sampled; the same seed gives the same draws again."""
        self.output_ids: list[int] = []
        self.logprobs: list[float] = []
        self.finish_reason = ""
        self.counts: Counter[int] = Counter()
        seed = self.sampling.seed
        self.random = random.Random(None if seed is None else f"{seed}/{self.index}")
        self.scan = StopScan(self.sampling.stop, self.decode) if self.sampling.stop else None

    @property
    def next_position(self) -> int:
        return len(self.prompt_ids) + len(self.output_ids) - 1

    @property
    def longest(self) -> int:
        """Tokens of keys and values at the most."""
        assert self.sampling.max_tokens is not None
        return len(self.prompt_ids) + self.sampling.max_tokens

    @property
    def may_end(self) -> bool:
        """Whether the next token may be an end-of-sequence token."""
        return len(self.output_ids) >= self.sampling.min_tokens and not self.sampling.ignore_eos

    def append(self, token: int, logprob: float | None) -> bool:
        """Take the next token; True when the row has ended."""
        self.output_ids.append(token)
        if logprob is not None:
            self.logprobs.append(logprob)
        if self.sampling.presence_penalty or self.sampling.frequency_penalty:
            self.counts[token] += 1
        past_minimum = len(self.output_ids) > self.sampling.min_tokens
        at_eos = token in self.eos_ids and not self.sampling.ignore_eos
        if at_eos or (self.scan is not None and self.scan.found(self.output_ids, past_minimum)):
            self.finish_reason = "stop"
        elif len(self.output_ids) >= (self.sampling.max_tokens or 0):
            self.finish_reason = "length"
        return bool(self.finish_reason)

    def output(self) -> Output:
        ids = self.output_ids
        if self.scan is not None and self.scan.cut is not None:
            text = self.scan.cut
        else:
            ended = bool(ids) and ids[-1] in self.eos_ids and self.finish_reason == "stop"
            text = self.decode(ids[:-1] if ended else ids)
        asked = self.sampling.logprobs is not None
        return Output(
            text, self.finish_reason, len(ids), list(ids) if asked else None, self.logprobs if asked else None
        )


class StopScan:
    """Looks for stop strings in the text of a growing list of tokens, decoding only its tail.

    A token may end inside a character: text is taken only once it ends in a whole one. The tail is decoded together
    with a few tokens before it, since many tokenizers write a token's leading space only when another comes before.
    """

    def __init__(self, stop: Sequence[str], decode: Decode) -> None:
        self._stop = stop
        self._longest = max(map(len, stop))
        self._decode = decode
        self._prefix = 0
        self._read = 0
        self._text = ""
        self.cut: str | None = None

    def found(self, ids: Sequence[int], may_stop: bool) -> bool:
        """Whether a stop string ends in the newest text; `cut` then is the text before it."""
        known = self._decode(ids[self._prefix : self._read])
        tail = self._decode(ids[self._prefix :])
        if len(tail) <= len(known) or tail.endswith("\ufffd"):
            return False
        start = max(0, len(self._text) - self._longest + 1)
        self._text += tail[len(known) :]
        self._prefix, self._read = self._read, len(ids)
        if not may_stop:
            return False
        places = [place for each in self._stop if (place := self._text.find(each, start)) >= 0]
        if places:
            self.cut = self._text[: min(places)]
        return bool(places)


class Job:
    """One request inside the engine: n rows, answered when all have ended."""

    __slots__ = ("aborted", "open", "outputs", "prompt_ids", "request", "sampling")

    def __init__(self, request: Request, sampling: Resolved, prompt_ids: list[int]) -> None:
        self.request = request
        self.sampling = sampling
        self.prompt_ids = prompt_ids
        self.outputs: list[Output | None] = [None] * sampling.n
        self.open = sampling.n
        self.aborted = False

    def end(self, row: Row) -> Answer | None:
        """Take an ended row; the answer once it was the last."""
        self.outputs[row.index] = row.output()
        self.open -= 1
        if self.open or self.aborted:
            return None
        outputs = [each for each in self.outputs if each is not None]
        return Answer(self.request.id, self.request.attempt, outputs=outputs, tokens_in=len(self.prompt_ids))


def rows_of(job: Job, eos_ids: frozenset[int], decode: Decode) -> list[Row]:
    return [Row(job, index, eos_ids, decode) for index in range(job.sampling.n)]
