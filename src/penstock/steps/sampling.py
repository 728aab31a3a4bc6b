"""The sampling fields of a step, as one Sampling per row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.data.base import Row
from penstock.data.templates import Template, TemplateFailure
from penstock.errors import ConfigError
from penstock.protocol.options import Sampling
from penstock.spec.problems import suggestion
from penstock.spec.sampling import OUTPUTS_RULE, SAMPLING_RULES
from penstock.spec.templates import is_template

__all__ = ["SamplingTemplate", "literal_sampling"]

_KEPT_SAMPLINGS = 4096  # different rendered samplings of one step that are kept for reuse


class SamplingTemplate:
    """Sampling fields that are literals or templates, as one Sampling per row.

    Equal samplings of one step are one object, so that the wire carries each once. Raises ConfigError for a literal
    out of its range.
    """

    def __init__(self, fields: Mapping[str, Any], n: int = 1) -> None:
        templates = {name: value for name, value in fields.items() if isinstance(value, str) and is_template(value)}
        self._templates = [(name, Template(value)) for name, value in templates.items()]
        self._literal = _checked({name: value for name, value in fields.items() if name not in templates}, n)
        self._fixed = None if self._templates else _of(self._literal)
        self._kept: dict[tuple[str, ...], Sampling] = {}

    def render(self, row: Row) -> Sampling:
        """The sampling for this row. Raises TemplateFailure (bad_sampling, template_missing_field...)."""
        if self._fixed is not None:
            return self._fixed
        texts = tuple([template.render(row) for _, template in self._templates])
        found = self._kept.get(texts)
        if found is None:
            found = self._parse(texts)
            if len(self._kept) >= _KEPT_SAMPLINGS:
                self._kept.clear()
            self._kept[texts] = found
        return found

    def _parse(self, texts: tuple[str, ...]) -> Sampling:
        values = dict(self._literal)
        for (name, _), text in zip(self._templates, texts, strict=True):
            try:
                values[name] = SAMPLING_RULES[name].parse(text)
            except (ValueError, OverflowError, RecursionError) as error:
                raise TemplateFailure("bad_sampling", f"{name}: {error}") from None
        try:
            return _of(values)
        except ConfigError as error:
            raise TemplateFailure("bad_sampling", error.message) from None


def literal_sampling(fields: Mapping[str, Any], n: int) -> Sampling:
    """Sampling fields without a row: a text is itself, not a template. Raises ConfigError."""
    return _of(_checked(fields, n))


def _checked(fields: Mapping[str, Any], n: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in {"n": n, **fields}.items():
        rule = OUTPUTS_RULE if name == "n" else SAMPLING_RULES.get(name)
        if rule is None:
            raise ConfigError(f"unknown sampling field {name!r}{suggestion(name, ('n', *SAMPLING_RULES))}")
        if value is None and name != "n":
            continue
        try:
            values[name] = rule.check(value)
        except ValueError as error:
            raise ConfigError(f"sampling field {name!r}: {error}") from None
    return values


def _of(values: dict[str, Any]) -> Sampling:
    least, most = values.get("min_tokens"), values.get("max_tokens")
    if least is not None and most is not None and least > most:
        raise ConfigError(f"min_tokens is {least}, above max_tokens {most}")
    return Sampling(**values)
