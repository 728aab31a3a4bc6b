"""A stable hash of a Python function, by which a resumed run detects a changed function.

Hashed are the bytecode, constants, defaults and closure values, nested functions included. Names of files, line
numbers, docstrings and addresses are not. Functions that it calls by name are not followed. Another minor version of
Python has other bytecode, and so another digest; `version=` on the step is the way to be independent of all that.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

from penstock.errors import ConfigError
from penstock.spec.problems import shown

BUILTIN_FUNCTIONS = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
)
# Modules whose values say all they are in their repr; elsewhere a repr may be cut short.
COMPARED_BY_REPR = frozenset({"datetime", "decimal", "fractions", "ipaddress", "pathlib", "uuid", "zoneinfo"})
_PICKLING = ("__reduce_ex__", "__reduce__", "__getstate__")
DIGEST_BYTES = 16  # 128 bits: no accident will make two functions alike


def function_digest(function: Callable[..., Any]) -> str:
    """The hash as hexadecimal text. Raises ConfigError when the function holds a value that can't be compared."""
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    try:
        for piece in _DigestWalk().pieces(function):
            state.update(len(piece).to_bytes(8, "big"))
            state.update(piece)
    except RecursionError:
        raise ConfigError('the function captures data that is nested too deeply; set version="1"') from None
    return state.hexdigest()


class _DigestWalk:
    """Turns a value into a sequence of byte strings that is the same in every process."""

    def __init__(self, seen: dict[int, int] | None = None) -> None:
        self._seen = dict(
            seen or {}
        )  # id -> order of first visit: a cycle is identified by that order, not the address
        self._kept: list[object] = []  # so that no id is used twice

    def pieces(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, (bool, int, str, bytes, float, complex, type(None), type(...))):
            yield f"{type(value).__name__} {value!r}".encode(errors="surrogatepass")
            return
        if id(value) in self._seen:
            yield f"again {self._seen[id(value)]}".encode()
            return
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        yield type(value).__qualname__.encode()
        yield from self._compound(value)

    def _compound(self, value: Any) -> Iterator[bytes]:
        match value:
            case types.CodeType():
                yield from self._code(value)
            case types.FunctionType():
                yield from self._function(value)
            case types.MethodType():
                yield from self._all(value.__func__, value.__self__)
            case functools.partial():
                yield from self._all(value.func, value.args, value.keywords)
            case types.ModuleType():
                yield value.__name__.encode()
            case type():
                yield f"{value.__module__}:{value.__qualname__}".encode()
            case range() | slice():
                yield repr(value).encode()
            case tuple() | list():
                yield str(len(value)).encode()
                yield from self._all(*value)
            case dict():
                yield str(len(value)).encode()
                for key in sorted(value) if all(isinstance(key, str) for key in value) else value:
                    yield from self._all(key, value[key])
            case set() | frozenset():
                yield str(len(value)).encode()
                yield from sorted(_joined(_DigestWalk(self._seen).pieces(item)) for item in value)
            case _:
                yield from self._object(value)

    def _all(self, *values: Any) -> Iterator[bytes]:
        for value in values:
            yield from self.pieces(value)

    def _function(self, function: types.FunctionType) -> Iterator[bytes]:
        yield from self._code(function.__code__, documented=isinstance(function.__doc__, str))
        yield from self._all(function.__defaults__, function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                yield from self.pieces(cell.cell_contents)
            except ValueError:  # a cell that is not filled yet
                yield b"empty cell"

    def _code(self, code: types.CodeType, *, documented: bool = False) -> Iterator[bytes]:
        yield code.co_code
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        yield repr(counts).encode()
        yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)).encode()
        constants = code.co_consts[1:] if documented else code.co_consts
        yield from self._all(len(constants), *constants)

    def _object(self, value: Any) -> Iterator[bytes]:
        kind = type(value)
        yield f"{kind.__module__}:{kind.__qualname__}".encode()
        if callable(value) and isinstance(vars(kind).get("__call__"), types.FunctionType):
            yield from self.pieces(vars(kind)["__call__"])
        if isinstance(value, BUILTIN_FUNCTIONS):
            yield from self._all(value.__qualname__, getattr(value, "__self__", None))
        elif isinstance(value, enum.Enum):
            yield value.name.encode()
        elif isinstance(value, re.Pattern):
            yield from self._all(value.pattern, value.flags)
        elif kind.__module__ in COMPARED_BY_REPR:
            yield repr(value).encode(errors="surrogatepass")
        elif (buffer := _buffer(value)) is not None:
            yield from self._all(buffer.format, buffer.shape, buffer.tobytes())
        else:
            yield from self._stored(value)

    def _stored(self, value: Any) -> Iterator[bytes]:
        """An object by what it gives to pickle, where its class says what that is; else by its attributes."""
        seen = dict(self._seen)
        # Attributes of a class with a part in C (a table's blocks) may be a cache of what that part holds.
        for state in (_reduced(value), _state(value)):
            try:
                if state is not None:
                    yield from list(self.pieces(state))
                    return
            except ConfigError:
                self._seen = dict(seen)
        raise ConfigError(
            f"the function captures a value whose changes can't be detected, {shown(value)}; set version on the "
            'step, for example version="1", and raise it when the function changes'
        )


def _joined(pieces: Iterator[bytes]) -> bytes:
    return b"".join(len(piece).to_bytes(8, "big") + piece for piece in pieces)


def _buffer(value: Any) -> memoryview | None:
    """The bytes of arrays of any library."""
    try:
        return memoryview(value)
    except (TypeError, ValueError, BufferError):
        return None


def _state(value: Any) -> dict[str, Any] | None:
    """The attributes of an object written in Python, or None where its state lies elsewhere."""
    slots: list[str] = []
    for cls in type(value).__mro__:
        own = vars(cls).get("__slots__", ())
        slots += [own] if isinstance(own, str) else own
    found = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    found.update(getattr(value, "__dict__", {}))
    return found or None


def _reduced(value: Any) -> Any:
    """What pickle would store of an object whose class says so itself; None where none does, or it can't be stored."""
    kind = type(value)
    if all(getattr(kind, name, None) is getattr(object, name, None) for name in _PICKLING):
        return None
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:
        return None
    if isinstance(reduced, str):
        return reduced
    return [list(part) if index > 2 and part is not None else part for index, part in enumerate(reduced)]
