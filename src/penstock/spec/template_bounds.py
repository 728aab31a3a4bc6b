"""The sandbox of templates, in which each operation that makes a value is charged to the meter before it is done.

Where values are made: operators, `~`, slices, filters, methods of texts and lists, loops, and the joining of a macro's
pieces. Each of them is charged by a formula over its arguments where it can make more than it is given.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from functools import update_wrapper
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, optimizeconst
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter

from penstock.spec.template_filters import bounded_filter, word_count
from penstock.spec.template_meter import (
    ITEM_BYTES,
    METER,
    counted,
    format_bytes,
    is_stream,
    list_bytes,
    printf_bytes,
    shown_bytes,
    size_of,
    text_bytes,
    unit,
)

__all__ = ["MAX_EXPONENT", "PromptEnvironment"]

MAX_EXPONENT = 4_096  # a power beyond it is a way to use up the memory, not a number for a prompt
_PADDING = frozenset({"center", "ljust", "rjust", "zfill", "to_bytes"})
_SPLITTING = frozenset({"split", "rsplit", "splitlines"})


class _Generator(CodeGenerator):
    """Has loops, slices and `~` go through the environment, as jinja has it for the other operators."""

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        charged = nodes.Call(nodes.EnvironmentAttribute("counted"), [node.iter], [], None, None, lineno=node.lineno)
        charged.set_environment(self.environment)
        again = nodes.For(node.target, charged, node.body, node.else_, node.test, node.recursive, lineno=node.lineno)
        again.set_environment(self.environment)
        super().visit_For(again, frame)

    @optimizeconst
    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            self.write("environment.getitem(")
            self.visit(node.node, frame)
            self.write(", ")
            self.visit(node.arg, frame)
            self.write(")")
            return
        self.write("environment.sliced(")
        for part in (node.node, node.arg.start, node.arg.stop, node.arg.step):
            self.write("None") if part is None else self.visit(part, frame)
            self.write(", ")
        self.write(")")

    @optimizeconst
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _Charging(SandboxedFormatter):
    """str.format, with each field charged."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        METER.take(format_bytes(value, format_spec))
        return super().format_field(value, format_spec)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        if conversion:
            METER.take(10 * shown_bytes(value))
        return super().convert_field(value, conversion)


class _ChargingEscapes(_Charging, SandboxedEscapeFormatter):
    """The same for a text that was marked as safe: what goes into it is escaped."""


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox, with limits on what one expression and one rendering can make."""

    code_generator_class = _Generator
    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filters["wordcount"] = word_count
        self.filters.update({name: bounded_filter(name, made) for name, made in self.filters.items()})

    # ------------------------------------------------------------ operators

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            _refuse_power(left, right)
        elif operator == "*":
            METER.take(_repeated(left, right) + _repeated(right, left))
        elif operator == "%":
            METER.take(printf_bytes(left, right))
        else:
            escaped = hasattr(left, "__html__") or hasattr(right, "__html__")
            METER.take((size_of(left) + size_of(right)) * (5 if escaped else 1))
        return super().call_binop(context, operator, left, right)

    def joined(self, parts: tuple[Any, ...]) -> str:
        """What `~` makes."""
        METER.take(sum(map(shown_bytes, parts)))
        return "".join([part if type(part) is str else str(part) for part in parts])

    def sliced(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """value[start:stop:step]"""
        wanted = slice(start, stop, step)
        if isinstance(value, (str, bytes, list, tuple)):
            METER.take(len(range(*wanted.indices(len(value)))) * (unit(value) if isinstance(value, str) else 8))
        return value[wanted]

    def counted(self, items: Iterable[Any]) -> Iterable[Any]:
        """What a loop goes over."""
        return counted(items)

    def concat(self, pieces: Iterable[str]) -> str:  # type: ignore[override]
        """The text of a macro or a block, of its pieces."""
        held = list(pieces)
        METER.take(sum(map(text_bytes, held)))
        return "".join(held)

    # ------------------------------------------------------------ calls

    def call(self, context: Context, function: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        METER.take(ITEM_BYTES)
        owner = getattr(function, "__self__", None)
        if isinstance(function, LoopContext):
            args = tuple(map(counted, args))
        elif isinstance(owner, (str, bytes, int)):
            args = tuple(list(counted(value)) if is_stream(value) else value for value in args)
            METER.take(_method_bytes(owner, getattr(function, "__name__", ""), args, kwargs))
        elif isinstance(function, type) or isinstance(owner, (type, list, tuple, dict)):
            args = tuple(counted(value) if is_stream(value) else value for value in args)
            held = (*args, *kwargs.values(), owner)
            METER.take(sum(map(list_bytes, held)) + sum(map(size_of, held)))
        return super().call(context, function, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        text: str = value.__self__
        escape = getattr(text, "escape", None)
        formatter = _Charging(self) if escape is None else _ChargingEscapes(self, escape=escape)
        is_map = value.__name__ == "format_map"

        def charged(*args: Any, **kwargs: Any) -> str:
            if is_map and (kwargs or len(args) != 1):
                raise TypeError("format_map() takes exactly one argument, and no keywords")
            METER.take(text_bytes(text))
            return type(text)(formatter.vformat(text, () if is_map else args, args[0] if is_map else kwargs))

        if isinstance(value, (types.BuiltinMethodType, types.MethodType)):
            update_wrapper(charged, value)
        return charged


def _repeated(value: Any, times: Any) -> int:
    """Bytes of value * times."""
    if not isinstance(times, int):
        return 0
    if isinstance(value, int):
        return (value.bit_length() + times.bit_length()) // 16  # half of it, since both orders are asked for
    return size_of(value) * max(times, 0)


def _refuse_power(base: Any, exponent: Any) -> None:
    if abs(exponent) > MAX_EXPONENT:
        raise SecurityError(f"an exponent above {MAX_EXPONENT}")
    if isinstance(base, int) and isinstance(exponent, int):
        METER.take(base.bit_length() * abs(exponent) // 8)


def _method_bytes(owner: str | bytes | int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """At most so many bytes has what a method of a text or a number makes."""
    given = (*args, *kwargs.values())
    each = unit(owner, *given)
    whole = sum(abs(value) for value in given if isinstance(value, int))
    size = 0 if isinstance(owner, int) else len(owner)
    if name in _PADDING:
        return (size + whole) * each
    if isinstance(owner, int):
        return 64 + size_of(owner)
    if name in _SPLITTING:
        return list_bytes(owner)
    if name == "expandtabs":
        tabs = owner.count("\t") if isinstance(owner, str) else owner.count(b"\t")
        return size + tabs * (whole if given else 8) * each
    if name == "replace" and len(args) >= 2:
        found = owner.count(args[0])
        return (size + found * len(args[1])) * each
    if name == "join":
        texts = args[0] if args else ()
        texts = list(texts) if isinstance(texts, dict) else texts
        return size * len(texts) * each + sum(map(shown_bytes, texts)) if hasattr(texts, "__len__") else 0
    if name == "translate" and args and isinstance(args[0], dict):
        longest = max((len(value) for value in args[0].values() if isinstance(value, str)), default=1)
        return size * max(longest, 1) * 4
    return sum(map(size_of, given)) + size * (10 if name in ("encode", "decode") else 3 if name == "hex" else 4)
