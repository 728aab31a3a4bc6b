"""What a request's sampling fields mean, once: defaults, limits, the seed, and the context.

Every engine resolves a request here before its library sees it, so that a field means the same everywhere. The order
for an unset field: the model's generation config, then the field's neutral value (temperature 1.0). `max_tokens`
unset: `max_new_tokens` of the generation config, else what is left of the context, at most `DEFAULT_MAX_TOKENS`.

A prompt is never cut: what does not fit is a row fault with the code `too_long` and the numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.protocol.messages import Answer, Request
from penstock.protocol.options import Sampling

__all__ = [
    "DEFAULT_MAX_TOKENS",
    "Defaults",
    "Resolved",
    "RowFault",
    "fit",
    "output_limit",
    "resolve",
    "samples",
    "seed_at",
]

DEFAULT_MAX_TOKENS = 1024
"""Output tokens where neither the step nor the model says: enough for an answer that ends by itself, and a bound on
a model that never ends. An answer that reaches it has the finish reason `length`."""

GREEDY_BELOW = 1e-5
"""Temperatures under this are greedy (vLLM's own limit), since dividing by them overflows."""


def samples(sampling: Sampling) -> bool:
    """Whether the request gets a seed of its run, or of its pool, where that has one."""
    return sampling.seed is None and (sampling.temperature is None or sampling.temperature > 0)


def seed_at(*place: object) -> int:
    """63 bits from where a request stands, so that the same request has the same seed whenever it is sent."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, place)).encode(), digest_size=8).digest()) >> 1


def output_limit(sampling: Sampling | None) -> int:
    """Tokens of all outputs of a request together, at most; 0 for one without outputs."""
    return 0 if sampling is None else (sampling.max_tokens or DEFAULT_MAX_TOKENS) * sampling.n


class RowFault(Exception):
    """The fault of one request. `code` is one of `errors.DEAD_CODES`, or `retry` for the fault of the attempt."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def answer(self, request: Request, tokens_in: int = 0) -> Answer:
        return Answer(request.id, request.attempt, code=self.code, message=self.message, tokens_in=tokens_in)


class Defaults(msgspec.Struct, frozen=True):
    """What the model's generation config says; None where it says nothing."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None

    @classmethod
    def of(cls, generation_config: Mapping[str, Any]) -> Defaults:
        """From the explicitly set fields of a generation config (`max_new_tokens` or `max_tokens`)."""
        found = {name: generation_config.get(name) for name in cls.__struct_fields__}
        if found["max_tokens"] is None:
            found["max_tokens"] = generation_config.get("max_new_tokens")
        return cls(**found)


class Resolved(msgspec.Struct, frozen=True):
    """Sampling with every field decided. seed None: greedy, or the draws need not repeat.

    top_k 0, top_p 1, min_p 0 and the penalties' neutral values mean: off. max_tokens None: not yet fitted.
    """

    n: int
    max_tokens: int | None
    min_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    stop: tuple[str, ...]
    seed: int | None
    logprobs: int | None
    ignore_eos: bool

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW


def resolve(sampling: Sampling | None, defaults: Defaults, request_seed: int | None) -> Resolved:
    """Decide every field. `request_seed` stands in for a seed that the step does not give, unless it is greedy.

    Raises RowFault("refused") with the field, its value and the limit.
    """
    asked = sampling if sampling is not None else Sampling()
    temperature = _first(asked.temperature, defaults.temperature, 1.0)
    top_k = int(_first(asked.top_k, defaults.top_k, 0))
    resolved = Resolved(
        n=asked.n,
        max_tokens=asked.max_tokens if asked.max_tokens is not None else defaults.max_tokens,
        min_tokens=int(_first(asked.min_tokens, None, 0)),
        temperature=temperature,
        top_p=_first(asked.top_p, defaults.top_p, 1.0),
        top_k=0 if top_k == -1 else top_k,
        min_p=_first(asked.min_p, defaults.min_p, 0.0),
        presence_penalty=_first(asked.presence_penalty, None, 0.0),
        frequency_penalty=_first(asked.frequency_penalty, None, 0.0),
        repetition_penalty=_first(asked.repetition_penalty, defaults.repetition_penalty, 1.0),
        stop=asked.stop or (),
        seed=asked.seed if asked.seed is not None else request_seed,
        logprobs=asked.logprobs,
        ignore_eos=asked.ignore_eos,
    )
    _check(resolved)
    return msgspec.structs.replace(resolved, seed=None) if resolved.greedy else resolved


def fit(resolved: Resolved, prompt_tokens: int, max_model_len: int) -> Resolved:
    """Decide `max_tokens` against the context of `max_model_len` tokens (0: no limit).

    Raises RowFault("too_long") where the prompt, or the prompt and the asked `max_tokens`, do not fit.
    """
    if prompt_tokens == 0:
        raise RowFault("refused", "the prompt has no tokens; give at least one character")
    asked = resolved.max_tokens
    if max_model_len <= 0:
        return resolved if asked is not None else msgspec.structs.replace(resolved, max_tokens=DEFAULT_MAX_TOKENS)
    left = max_model_len - prompt_tokens
    if left < 1:
        raise RowFault(
            "too_long",
            f"the prompt has {prompt_tokens} tokens; the context of {max_model_len} leaves no room for output",
        )
    if asked is not None and asked > left:
        raise RowFault(
            "too_long",
            f"the prompt has {prompt_tokens} tokens and max_tokens is {asked}, {prompt_tokens + asked} in total; "
            f"the context length is {max_model_len}",
        )
    max_tokens = asked if asked is not None else min(left, DEFAULT_MAX_TOKENS)
    if resolved.min_tokens > max_tokens:
        raise RowFault("refused", f"min_tokens is {resolved.min_tokens}, over the {max_tokens} tokens that fit")
    return resolved if asked is not None else msgspec.structs.replace(resolved, max_tokens=max_tokens)


def _first(asked: float | None, default: float | None, neutral: float) -> float:
    if asked is not None:
        return asked
    return default if default is not None else neutral


def _check(resolved: Resolved) -> None:
    limits = (
        ("n", resolved.n, 1, math.inf),
        ("max_tokens", resolved.max_tokens, 1, math.inf),
        ("min_tokens", resolved.min_tokens, 0, math.inf),
        ("temperature", resolved.temperature, 0, math.inf),
        ("top_k", resolved.top_k, 0, math.inf),
        ("min_p", resolved.min_p, 0, 1),
        ("top_p", resolved.top_p, 0, 1),
        ("presence_penalty", resolved.presence_penalty, -2, 2),
        ("frequency_penalty", resolved.frequency_penalty, -2, 2),
        ("repetition_penalty", resolved.repetition_penalty, 0, math.inf),
        ("logprobs", resolved.logprobs, 0, math.inf),
    )
    for name, value, low, high in limits:
        if value is not None and not (low <= value <= high and math.isfinite(value)):
            bound = f"between {low} and {high}" if high != math.inf else f"at least {low}, and finite"
            raise RowFault("refused", f"{name} is {value}; it must be {bound}")
    if resolved.top_p == 0 or resolved.repetition_penalty == 0:
        raise RowFault("refused", "top_p and repetition_penalty must be over 0")
    if resolved.max_tokens is not None and resolved.min_tokens > resolved.max_tokens:
        raise RowFault("refused", f"min_tokens is {resolved.min_tokens}, over max_tokens {resolved.max_tokens}")
    if resolved.n > 1 and resolved.greedy:
        raise RowFault(
            "refused", f"n is {resolved.n} with temperature 0: all outputs would be identical; raise the temperature"
        )
    if any(not text for text in resolved.stop):
        raise RowFault("refused", "stop has an empty string, which would stop at once")
