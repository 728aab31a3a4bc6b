"""What the mock engine answers: text that is a function of prompt, sampling fields and the engine's seed alone."""

from __future__ import annotations

import hashlib
import math
import struct

import msgspec

from penstock.protocol.messages import AnswerPart, Output, Request
from penstock.protocol.options import Sampling
from penstock.protocol.payloads import Messages, Pair, Payload, TokenIds

__all__ = ["MAX_OUTPUT_TOKENS", "MockWriter", "parts_of", "prompt_text"]

MAX_OUTPUT_TOKENS = 1_000_000  # of one output; far beyond any model's context, and text that still fits a message
DEFAULT_OUTPUT_TOKENS = 16
_WORD_BYTES = 2  # a word after the first: two bytes in hex

_NO_SAMPLING = Sampling()
_UINT64 = struct.Struct(">QQ")


def prompt_text(payload: Payload | None) -> str:
    """The prompt itself, or the lines "role: content" of messages; what a request's answer depends on."""
    match payload:
        case str():
            return payload
        case Messages():
            return "\n".join(f"{each['role']}: {each['content']}" for each in payload.as_dicts())
        case TokenIds():
            return " ".join(map(str, payload.ids))
        case Pair():
            return "\n".join([payload.query, *payload.texts])
    raise TypeError(f"the mock engine can't read a payload of type {type(payload).__name__}")


def parts_of(request: Request, outputs: list[Output]) -> list[AnswerPart]:
    """A part for each word of each output."""
    parts: list[AnswerPart] = []
    for index, output in enumerate(outputs):
        words = output.text.split(" ")
        for at, word in enumerate(words):
            reason = output.finish_reason if at == len(words) - 1 else ""
            parts.append(AnswerPart(request.id, request.attempt, index, f" {word}" if at else word, None, reason))
    return parts


class MockWriter:
    """Writes the outputs of one request.

    seed                the engine's
    eos_median_tokens   above 0: an output may end before max_tokens, at a log-normal length drawn from the prompt
    eos_sigma           the deviation of its logarithm
    """

    def __init__(self, seed: int = 0, eos_median_tokens: float = 0.0, eos_sigma: float = 0.0) -> None:
        self._seed = str(seed).encode()
        self._eos_median_tokens = eos_median_tokens
        self._eos_sigma = eos_sigma
        self._sampling: Sampling | None = None
        self._key = b""

    def write(self, prompt: str, sampling: Sampling | None) -> list[Output]:
        """`sampling.n` outputs. The first word of each is the prompt's hash; the others differ between outputs."""
        sampling = sampling or _NO_SAMPLING
        data = prompt.encode("utf-8", "surrogatepass")
        first = hashlib.blake2b(data, digest_size=8).hexdigest()
        key = self._sampling_key(sampling)
        return [self._output(data, first, key, sampling, index) for index in range(sampling.n)]

    def _sampling_key(self, sampling: Sampling) -> bytes:
        if sampling is not self._sampling:
            # By the fields alone, so that the answers stay as they are whatever else an option says of itself.
            names = [n for n in sampling.__struct_fields__ if getattr(sampling, n) != getattr(_NO_SAMPLING, n)]
            fields = {name: getattr(sampling, name) for name in names}
            self._key = msgspec.json.encode(fields) + b"\0" + self._seed + b"\0"
            self._sampling = sampling
        return self._key

    def _output(self, data: bytes, first: str, key: bytes, sampling: Sampling, index: int) -> Output:
        limit = DEFAULT_OUTPUT_TOKENS if sampling.max_tokens is None else sampling.max_tokens
        tokens = limit
        if self._eos_median_tokens > 0 and not sampling.ignore_eos:
            tokens = min(limit, max(self._drawn_length(data, index), sampling.min_tokens or 1))
        # One stream per output, cut into words by the interpreter's own C code: about 3 us for 300 words.
        stream = hashlib.shake_128(b"%d\0%b%b" % (index, key, data)).digest(_WORD_BYTES * (tokens - 1))
        text = f"{first} {stream.hex(' ', _WORD_BYTES)}" if stream else first
        output = Output(text, "length" if tokens == limit else "stop", tokens)
        if sampling.logprobs is not None:
            output.token_ids = _token_ids(first, stream)
            output.logprobs = [-(number % 1024) / 256 for number in output.token_ids]
        return output

    def _drawn_length(self, data: bytes, index: int) -> int:
        """max(1, round(median * exp(sigma * z))), z standard normal, from blake2b(prompt, seed)."""
        source = hashlib.blake2b(b"%b\0%d\0%b" % (self._seed, index, data), digest_size=_UINT64.size)
        one, two = _UINT64.unpack(source.digest())
        radius = math.sqrt(-2.0 * math.log((one + 1) / 2.0**64))  # Box and Muller's transform of two uniforms
        deviation = radius * math.cos(2.0 * math.pi * two / 2.0**64)
        return max(1, round(self._eos_median_tokens * math.exp(min(self._eos_sigma * deviation, 50.0))))


def _token_ids(first: str, stream: bytes) -> list[int]:
    words = struct.unpack(f">{len(stream) // _WORD_BYTES}H", stream)
    return [int(first[:4], 16), *words]
