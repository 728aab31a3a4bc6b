"""The one jinja environment of Penstock: sandboxed, strict, without loaders, randomness or unbounded sizes.

As in jinja itself, one newline at the end of a template is dropped, so that a YAML block ends where its text ends.
What the sandbox can't bound is the time of nested loops over ranges; a range has at most 100,000 items.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, meta, nodes
from jinja2.environment import TemplateExpression
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from penstock.errors import ConfigError

MAX_CHARACTERS = 16 * 1024 * 1024  # of one value made by repetition or padding; no prompt is longer
MAX_EXPONENT = 4_096  # a power beyond it is a way to use up the memory, not a number for a prompt
PADDING = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill"})


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox, with limits on what one expression can make."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and abs(right) > MAX_EXPONENT:
            raise SecurityError(f"an exponent above {MAX_EXPONENT}")
        if operator == "*":
            _refuse_size(_length(left) * right if isinstance(right, int) else 0)
            _refuse_size(_length(right) * left if isinstance(left, int) else 0)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        if getattr(function, "__name__", None) in PADDING:
            for argument in (*args, *kwargs.values()):
                _refuse_size(argument if isinstance(argument, int) else 0)
        return super().call(context, function, *args, **kwargs)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, bytes, list, tuple)) else 0


def _refuse_size(size: int) -> None:
    if size > MAX_CHARACTERS:
        raise SecurityError(f"a value of {size:,} items; the limit is {MAX_CHARACTERS:,}")


def _center(value: str, width: int = 80) -> str:
    _refuse_size(width)
    return str(value).center(width)


@lru_cache(maxsize=1)
def environment() -> PromptEnvironment:
    """The environment that every template is compiled in. Do not change it."""
    made = PromptEnvironment(undefined=StrictUndefined, autoescape=False, loader=None, cache_size=0)
    made.filters["center"] = _center
    # A row that is tried again, or again after a resume, must render to the same text.
    del made.filters["random"], made.globals["lipsum"]
    return made


def is_template(text: str) -> bool:
    """Whether `text` has anything to render."""
    return "{{" in text or "{%" in text


@lru_cache(maxsize=1024)
def template_problem(text: str) -> str | None:
    """What is wrong with the template, in one sentence, or None."""
    try:
        tree = environment().parse(text)
        if any(True for _ in meta.find_referenced_templates(tree)):
            return "a template can't include, import or extend another one"
        environment().compile(tree)
    except TemplateSyntaxError as error:
        return f"not a valid template: {_reason(error, text)}"
    except (RecursionError, MemoryError, OverflowError, ValueError, SyntaxError) as error:
        return f"not a valid template: {type(error).__name__}"
    return None


@lru_cache(maxsize=1024)
def expression_problem(text: str) -> str | None:
    """What is wrong with the expression, in one sentence, or None."""
    try:
        environment().compile_expression(text, undefined_to_none=False)
    except TemplateSyntaxError as error:
        return f"not a valid expression: {_reason(error, text)}"
    except (RecursionError, MemoryError, OverflowError, ValueError, SyntaxError) as error:
        return f"not a valid expression: {type(error).__name__}"
    return None


def _reason(error: TemplateSyntaxError, text: str) -> str:
    reason = (error.message or "syntax error").rstrip(".")
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
    return environment().compile_expression(text, undefined_to_none=False)
