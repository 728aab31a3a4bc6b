"""How an interrupted command line ends: what it says, its exit code, and the handlers of signals before a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

from penstock.errors import ExitCode

__all__ = ["DEBUG_FLAG", "end_at_once", "ending", "listen", "restore", "stoppable", "without_debug"]

Handler = Callable[[int, FrameType | None], None]

DEBUG_FLAG = "--debug"


def without_debug(words: Sequence[str]) -> tuple[list[str], bool]:
    """A command line without `--debug`, and whether it had it: a flag of `penstock` itself, wherever it stands."""
    end = words.index("--") if "--" in words else len(words)  # what follows are arguments, whatever they look like
    options = [word for word in words[:end] if word != DEBUG_FLAG]
    return [*options, *words[end:]], len(options) < end


def ending(tokens: Sequence[str]) -> tuple[str, int]:
    """The message and exit code of a command that was interrupted outside of a run or retry."""
    if stoppable(tokens):
        return f"stopped; run the same command to start or continue the {tokens[0]}", ExitCode.STOPPED
    return "stopped", ExitCode.STOPPED_AT_ONCE


def end_at_once(tokens: Sequence[str]) -> Handler:
    """A signal handler that exits the process cleanly.

    It raises nothing: an exception that comes from anywhere is made another by one library, and swallowed by the next.
    """
    message, code = ending(tokens)

    def end(number: int = 0, frame: FrameType | None = None) -> None:
        try:
            os.write(2, f"penstock: {message}\n".encode())
        finally:
            os._exit(code)  # also if stderr can't be written

    return end


def stoppable(tokens: Sequence[str]) -> bool:
    """Whether SIGTERM, like Ctrl-C, stops this command cleanly."""
    return tokens[:1] in (["run"], ["retry"])


def listen(handler: Handler, numbers: Iterable[signal.Signals]) -> dict[signal.Signals, Any]:
    """Take these signals, except those that the process ignores; returns the previous handlers."""
    taken = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    return {number: signal.signal(number, handler) for number in taken}


def restore(before: Mapping[signal.Signals, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
