"""The one jinja environment of Penstock: sandboxed, strict, without loaders, randomness or unbounded sizes.

As in jinja itself, one newline at the end of a template is dropped, so that a YAML block ends where its text ends.
What one rendering can make, and so how often its loops can turn, is bounded (template_bounds.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta, nodes
from jinja2.environment import TemplateExpression
from jinja2.parser import Parser

from penstock.errors import ConfigError
from penstock.spec.problems import nearest
from penstock.spec.template_bounds import PromptEnvironment
from penstock.spec.template_meter import METER

_UNKNOWN_FILTER = re.compile(r"No filter named '(.*)'")
_CONSTANT_BYTES = 1 << 20  # of what is computed while a template is compiled; more is left to the rendering


@lru_cache(maxsize=1)
def environment() -> PromptEnvironment:
    """The environment that every template is compiled in. Do not change it."""
    made = PromptEnvironment(undefined=StrictUndefined, autoescape=False, loader=None, cache_size=0)
    # A row that is tried again, or again after a resume, must render to the same text.
    del made.filters["random"], made.globals["lipsum"]
    return made


def is_template(text: str) -> bool:
    """Whether `text` has anything to render."""
    return "{{" in text or "{%" in text


@lru_cache(maxsize=1024)
def template_problem(text: str) -> str | None:
    """What is wrong with the template, in one sentence, or None."""
    METER.begin(_CONSTANT_BYTES)
    try:
        tree = environment().parse(text)
        if any(True for _ in meta.find_referenced_templates(tree)):
            return "a template can't include, import or extend another one"
        environment().compile(tree)
    except TemplateSyntaxError as error:
        reason = _reason(error, text)
        hint = "; write a column as {{ column }}" if reason.startswith("unexpected") else ""
        return f"not a valid template: {reason}{hint}"
    except Exception as error:  # jinja computes constants, so that anything may come of `1 ~ 2.x`
        return f"not a valid template: {type(error).__name__}"
    return None


@lru_cache(maxsize=1024)
def expression_problem(text: str) -> str | None:
    """What is wrong with the expression, in one sentence, or None."""
    METER.begin(_CONSTANT_BYTES)
    try:
        environment().compile_expression(text, undefined_to_none=False)
    except TemplateSyntaxError as error:
        hint = "; write an expression without {{ and }}" if is_template(text) else ""
        return f"not a valid expression: {_reason(error, text)}{hint}"
    except Exception as error:
        return f"not a valid expression: {type(error).__name__}"
    return None


def _reason(error: TemplateSyntaxError, text: str) -> str:
    reason = (error.message or "syntax error").rstrip(".")
    if (unknown := _UNKNOWN_FILTER.fullmatch(reason)) and (near := nearest(unknown[1], environment().filters)):
        reason += f"; did you mean '{near}'?"
    return f"{reason} (line {error.lineno} of the text)" if "\n" in text.rstrip("\n") else reason


@lru_cache(maxsize=1024)
def undeclared(text: str) -> frozenset[str]:
    """The names that the template takes from the row. Raises ConfigError when it is no valid template."""
    problem = template_problem(text)
    if problem:
        raise ConfigError(problem)
    return frozenset(meta.find_undeclared_variables(environment().parse(text)))


@lru_cache(maxsize=1024)
def undeclared_in_expression(text: str) -> frozenset[str]:
    """The names that the expression takes from the row. Raises ConfigError when it is no valid expression."""
    problem = expression_problem(text)
    if problem:
        raise ConfigError(problem)
    expression = Parser(environment(), text, state="variable").parse_expression()
    tree = nodes.Template([nodes.Output([expression], lineno=1)], lineno=1)
    tree.set_environment(environment())
    return frozenset(meta.find_undeclared_variables(tree))


def compile_expression(text: str) -> TemplateExpression:
    """A callable of the row's columns (`expression(**row)`). A missing column raises jinja2.UndefinedError, at the
    latest when the result is used. Raises ConfigError when it is no valid expression."""
    problem = expression_problem(text)
    if problem:
        raise ConfigError(problem)
    METER.begin(_CONSTANT_BYTES)
    return environment().compile_expression(text, undefined_to_none=False)


def compile_template(text: str, finalize: Callable[[Any], Any]) -> Template:
    """The template, which has passed `template_problem`. finalize: sees every value before it becomes text."""
    METER.begin(_CONSTANT_BYTES)
    return environment().overlay(finalize=finalize).from_string(text)
