"""Where the command line begins: importing it takes tenths of a second, in which Ctrl-C is to show no traceback."""

from __future__ import annotations

import signal
import sys

from penstock.cli.interrupted import end_at_once, listen, restore, stoppable, without_debug

__all__ = ["main"]


def main() -> int:
    """Import the command line and run it; a signal before the handlers are installed exits cleanly."""
    tokens, _ = without_debug(sys.argv[1:])
    end = end_at_once(tokens)
    before = listen(end, (signal.SIGINT, signal.SIGTERM))
    from penstock.cli.main import main as command_line

    try:
        if not stoppable(tokens):
            restore(before)
        return command_line()
    except KeyboardInterrupt:  # between here and there
        end(0, None)
        raise
