"""Where the command line begins: importing it takes a tenth of a second, in which Ctrl-C is to show no traceback."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

__all__ = ["main"]


def main() -> int:
    """Import the command line and run it; a signal that comes before it listens ends the process in good order."""
    begins = sys.argv[1:2] == ["run"]
    told, code = ("stopped before the run began; the same command begins it", 75) if begins else ("stopped", 130)

    def end(number: int = 0, frame: FrameType | None = None) -> None:
        os.write(2, f"penstock: {told}\n".encode())
        os._exit(code)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    from penstock.cli.main import main as command_line

    try:
        for number, handler in before.items():
            signal.signal(number, handler)
        return command_line()
    except KeyboardInterrupt:  # between here and there
        end()
        raise
