"""Functions that a worker can't import, sent to it by value: lambdas, closures, what a notebook or a script defines.

cloudpickle writes them, in the process that defined them, to a file in memory that has no name; the workers that this
process starts inherit its descriptor. Nothing else is ever unpickled: what comes from a socket or from disk may have
been written by anybody, while this can come only from the parent process (design/0003).
"""

from __future__ import annotations

import inspect
import mmap
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from penstock.errors import ConfigError

__all__ = ["FunctionFile", "read_functions"]

Function = Callable[[Any], Any]


class FunctionFile:
    """functions: by Request.step; None where a step has none, or one that is imported. Written once, read by each
    worker; `close` gives its memory back when the last of them has ended.

    Raises ConfigError for a function that can't be pickled.
    """

    def __init__(self, functions: Sequence[Function | None]) -> None:
        import cloudpickle

        self.descriptor = os.memfd_create("penstock-functions")
        try:
            with open(self.descriptor, "wb", closefd=False) as file:
                cloudpickle.dump(list(functions), file)
        except Exception as error:
            self.close()
            raise ConfigError(_refusal(functions, error)) from error

    def close(self) -> None:
        """A second time does nothing: by then the number may be another file's."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1


def read_functions(descriptor: int) -> list[Function | None]:
    """What the parent process wrote. Raises whatever importing the modules that the functions name raises."""
    # Mapped, not read: the workers share one file offset.
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
        found: list[Function | None] = pickle.loads(view)  # noqa: S301  the parent process wrote it, see above
    os.close(descriptor)
    return found


def _refusal(functions: Sequence[Function | None], error: Exception) -> str:
    for function in functions:
        if function is None or (cause := _fault(function)) is None:
            continue
        name = getattr(function, "__qualname__", type(function).__qualname__)
        for variable, value in _captured(function):
            if (found := _fault(value)) is not None:
                kind = f"{type(value).__module__}.{type(value).__qualname__}"
                return (
                    f"the function {name} can't be sent to the workers: it uses '{variable}', a {kind} ({found}); "
                    "create it inside the function, or put both into a module and import the function from there"
                )
        return f"the function {name} can't be sent to the workers ({cause}); put it into a module and import it"
    return f"the functions can't be sent to the workers: {_describe(error)}"


def _captured(function: Function) -> Iterator[tuple[str, Any]]:
    if inspect.isfunction(function):
        variables = inspect.getclosurevars(function)
        yield from (*variables.nonlocals.items(), *variables.globals.items())
    else:
        yield from getattr(function, "__dict__", {}).items()


def _fault(value: Any) -> str | None:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception as error:
        return _describe(error)
    return None


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
