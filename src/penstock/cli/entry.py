"""Where the command line begins: importing it takes tenths of a second, in which Ctrl-C is to show no traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

__all__ = ["end_at_once", "ending", "main"]

STOPPED_EXIT = 75
INTERRUPTED_EXIT = 130


def ending(tokens: Sequence[str]) -> tuple[str, int]:
    """What is told of a command line that was interrupted outside a run, and its exit code."""
    if tokens[:1] == ["run"]:
        return "stopped before the run began; the same command begins it", STOPPED_EXIT
    return "stopped", INTERRUPTED_EXIT


def end_at_once(tokens: Sequence[str]) -> Callable[[int, FrameType | None], None]:
    """A handler of signals that ends the process in good order.

    It raises nothing: an exception that comes from anywhere is made another by one library, and swallowed by the next.
    """
    told, code = ending(tokens)

    def end(number: int = 0, frame: FrameType | None = None) -> None:
        os.write(2, f"penstock: {told}\n".encode())
        os._exit(code)

    return end


def main() -> int:
    """Import the command line and run it; a signal that comes before it listens ends the process in good order."""
    end = end_at_once(sys.argv[1:])
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    from penstock.cli.main import main as command_line

    try:
        for number, handler in before.items():
            signal.signal(number, handler)
        return command_line()
    except KeyboardInterrupt:  # between here and there
        end(0, None)
        raise
