"""Options of a request: sampling, embedding, scoring or classification. One union, by tag."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["PARTS", "Classification", "Embedding", "Options", "Sampling", "Scoring", "Structured", "tag_of"]


class Structured(msgspec.Struct, frozen=True):
    """The form that an output must have. text: a JSON schema, a regular expression, or a grammar; choice: a JSON list
    of texts."""

    kind: Literal["json", "regex", "grammar", "choice"]
    text: str


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True, tag="sampling"):
    """How to sample one request. None: the model's generation config, else the field's neutral value.

    labels: the answer is the log-probability of each of these as the first token, not a text
    """

    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    stop: tuple[str, ...] | None = None
    seed: int | None = None
    logprobs: int | None = None
    n: int = 1
    ignore_eos: bool = False
    structured: Structured | None = None
    labels: tuple[str, ...] | None = None


class Embedding(msgspec.Struct, frozen=True, omit_defaults=True, tag="embedding"):
    """A vector of each text. None: as the model's files say.

    route       document | query | plain: which of the model's own prompts and routes; prompt: text put before instead
    truncate    a longer text is cut at its end, is an error, or becomes several vectors
    chunk_tokens, chunk_stride, combine    of the last; 0: max_model_len tokens
    dimensions  the first so many, before the vector is normalized
    """

    route: Literal["document", "query", "plain"] = "plain"
    prompt: str | None = None
    truncate: Literal["end", "error", "chunk"] = "end"
    chunk_tokens: int = 0
    chunk_stride: int = 0
    combine: Literal["mean", "separate"] = "mean"
    dimensions: int | None = None
    normalize: bool | None = None
    precision: Literal["float32", "float16", "int8", "binary"] = "float32"


class Scoring(msgspec.Struct, frozen=True, omit_defaults=True, tag="scoring"):
    """A number for each text of a Pair. activation None: as the model's files say."""

    activation: Literal["sigmoid", "none"] | None = None
    truncate: Literal["end", "error"] = "end"


class Classification(msgspec.Struct, frozen=True, omit_defaults=True, tag="classification"):
    """The scores of all labels, in the model's order."""

    truncate: Literal["end", "error"] = "end"


Options = Sampling | Embedding | Scoring | Classification

PARTS = "parts"
"""Among what an engine honours: it answers in parts (`Request.listener`)."""


def tag_of(options: Options) -> str:
    """sampling | embedding | scoring | classification."""
    return str(options.__struct_config__.tag)
