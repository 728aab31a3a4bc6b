"""The sampling fields: their types and ranges. A literal is checked when the pipeline is read, a template's rendered
text by the same rule for each row."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from pydantic import PlainValidator

from penstock.spec.fields import is_number, is_whole
from penstock.spec.problems import shown
from penstock.spec.templates import is_template, template_problem

MAX_STOPS = 16  # engines compare every stop string with every new token
MAX_SEED = (1 << 63) - 1
MAX_TOKENS = (1 << 31) - 1  # engines count tokens in 32 bits
MAX_OUTPUTS = 16_384  # of one request, as vLLM has it: an engine holds all of them at once


@dataclass(frozen=True)
class SamplingRule:
    """What one field may hold. `low` and `high` are inclusive, `above` is not."""

    kind: Literal["int", "float", "bool", "stop"]
    low: float | None = None
    high: float | None = None
    above: float | None = None

    def check(self, value: Any) -> Any:
        """The value in its normal form (float, tuple of stop strings). Raises ValueError."""
        if self.kind == "stop":
            return _stops(value)
        if self.kind == "bool":
            if isinstance(value, bool):
                return value
        elif (is_whole(value) if self.kind == "int" else is_number(value)) and self._in_range(value):
            return value if self.kind == "int" else float(value)
        too_many = self.high is not None and isinstance(value, int) and value > self.high >= MAX_TOKENS
        limit = f"; the most is {self.high:,}" if too_many else ""
        raise ValueError(f"expected {self.expectation}, got {shown(value)}{limit}")

    def parse(self, text: str) -> Any:
        """The value of a rendered template. Raises ValueError."""
        if self.kind == "stop":
            return self.check(_maybe_list(text))
        word = text.strip()
        try:
            value: Any = {"true": True, "false": False}[word.lower()] if self.kind == "bool" else float(word)
            if self.kind == "int":
                value = int(word) if value != int(value) or abs(value) >= 2**53 else int(value)
        except (ValueError, KeyError, OverflowError):
            value = text
        return self.check(value)

    def _in_range(self, value: float) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
        )

    @property
    def expectation(self) -> str:
        if self.kind == "bool":
            return "true or false"
        noun = "a whole number" if self.kind == "int" else "a number"
        limits = [
            f"of at least {self.low:g}" if self.low is not None else "",
            f"above {self.above:g}" if self.above is not None else "",
            f"of at most {self.high:g}" if self.high is not None and self.high < MAX_TOKENS else "",
        ]
        return " ".join([noun, " and ".join(limit for limit in limits if limit)]).strip()


def _stops(value: Any) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else value
    if not isinstance(stops, (list, tuple)) or not all(isinstance(stop, str) and stop for stop in stops):
        raise ValueError(f"expected a text or a list of texts, none of them empty, got {shown(value)}")
    if any("\ud800" <= character <= "\udfff" for stop in stops for character in stop):
        raise ValueError(f"expected valid Unicode, got {shown(value)} with a lone surrogate")
    if len(stops) > MAX_STOPS:
        raise ValueError(f"expected at most {MAX_STOPS} stop texts, got {len(stops)}")
    return tuple(stops)


def _maybe_list(text: str) -> Any:
    """A rendered stop is a JSON list of texts where it looks like one, else one text."""
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


SAMPLING_RULES: dict[str, SamplingRule] = {
    "max_tokens": SamplingRule("int", low=1, high=MAX_TOKENS),
    "min_tokens": SamplingRule("int", low=0, high=MAX_TOKENS),
    "temperature": SamplingRule("float", low=0),
    "top_p": SamplingRule("float", above=0, high=1),
    "top_k": SamplingRule("int", low=-1, high=MAX_TOKENS),
    "min_p": SamplingRule("float", low=0, high=1),
    "presence_penalty": SamplingRule("float", low=-2, high=2),
    "frequency_penalty": SamplingRule("float", low=-2, high=2),
    "repetition_penalty": SamplingRule("float", above=0),
    "stop": SamplingRule("stop"),
    "seed": SamplingRule("int", low=0, high=MAX_SEED),
    "logprobs": SamplingRule("int", low=0, high=20),
    "ignore_eos": SamplingRule("bool"),
}
OUTPUTS_RULE = SamplingRule("int", low=1, high=MAX_OUTPUTS)
"""Of `n`, how many outputs a request has."""


class SamplingOptions(TypedDict, total=False):
    """The sampling fields as keyword arguments. A string is a template over the row."""

    max_tokens: int | str
    min_tokens: int | str
    temperature: float | str
    top_p: float | str
    top_k: int | str
    min_p: float | str
    presence_penalty: float | str
    frequency_penalty: float | str
    repetition_penalty: float | str
    stop: str | list[str] | tuple[str, ...]
    seed: int | str
    logprobs: int | str
    ignore_eos: bool | str


def sampled(name: str) -> PlainValidator:
    """The field type: None, a literal within the rule, or a template."""
    rule = SAMPLING_RULES[name]

    def check(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, str) and is_template(value):
            problem = template_problem(value)
            if problem:
                raise ValueError(problem)
            return value
        try:
            return rule.check(value)
        except ValueError as error:
            if isinstance(value, str):
                raise ValueError(f'{error} (a template over the row is written "{{{{ column }}}}")') from None
            raise

    return PlainValidator(check)
