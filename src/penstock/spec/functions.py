"""References to Python functions: by name if they can be imported, otherwise by object."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import PlainValidator

from penstock.errors import ConfigError
from penstock.spec.digest import function_digest
from penstock.spec.problems import shown, suggestion

NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class FunctionRef:
    """A function of a step.

    name      "module:qualname"; of a function that can't be imported, the same with its <lambda> or <locals>
    version   what the user says about its identity, or None
    code      digest of a function that can't be imported, so that two lambdas are not taken for one; else None
    """

    name: str
    version: str | None = None
    code: str | None = None
    callable: Callable[..., Any] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, function: Callable[..., Any], version: str | None = None) -> FunctionRef:
        """The reference to a callable. Raises ConfigError when it can neither be imported nor compared."""
        name = importable(function)
        if name is not None:
            return cls(name, version, None, function)
        module = getattr(function, "__module__", None) or "?"
        described = getattr(function, "__qualname__", None) or type(function).__qualname__
        code = None if version is not None else function_digest(function)
        return cls(f"{module}:{described}", version, code, function)

    @property
    def is_importable(self) -> bool:
        """Whether another process can import it by name; otherwise it is sent by value."""
        return self.callable is None or importable(self.callable) == self.name

    def digest(self) -> str:
        """What a resume compares: `version NAME`, or `code HASH` of the function. Imports it where needed."""
        if self.version is not None:
            return f"version {self.version}"
        return f"code {self.code or function_digest(self.resolve())}"

    def resolve(self) -> Callable[..., Any]:
        """The function itself. Raises ConfigError that says which part of the name does not exist."""
        return self.callable if self.callable is not None else _imported(self.name)


def importable(function: Callable[..., Any]) -> str | None:
    """`module:qualname` when importing that name gives this very object back, else None.

    Functions of `__main__` are not: a worker has another main module.
    """
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or module in ("__main__", "__mp_main__"):
        return None
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return f"{module}:{qualname}" if found is function else None


def _imported(name: str) -> Callable[..., Any]:
    module_name, _, qualname = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"can't import '{module_name}' for the function '{name}': {error}; "
            "the working directory is on the import path: run penstock from the folder that contains the module"
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"importing '{module_name}' for the function '{name}' failed: {_describe(error)}") from error
    for part in qualname.split("."):
        if not hasattr(found, part):
            public = [key for key in dir(found) if not key.startswith("_") and callable(getattr(found, key, None))]
            raise ConfigError(f"'{module_name}' has no function '{qualname}'{suggestion(part, public[:20])}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"'{name}' is {shown(found)}, not a function")
    return found  # type: ignore[no-any-return]


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _function(value: Any) -> FunctionRef | None:
    if value is None or isinstance(value, FunctionRef):
        return value
    if isinstance(value, str):
        if not NAME.fullmatch(value):
            raise ValueError(f"expected module:function, for instance mypackage.steps:add_length, got {shown(value)}")
        return FunctionRef(value)
    if callable(value):
        try:
            return FunctionRef.of(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
    raise ValueError(f"expected a function or module:function, got {shown(value)}")


FunctionField = Annotated[FunctionRef, PlainValidator(_function)]
OptionalFunction = Annotated[FunctionRef | None, PlainValidator(_function)]
