"""Where the command line begins and ends. Importing it takes tenths of a second, in which Ctrl-C is to show no
traceback; its end is the process's, whatever threads libraries have left."""

from __future__ import annotations

import atexit
import os
import signal
import sys

from penstock.cli.interrupted import end_at_once, listen, restore, stoppable, without_debug

__all__ = ["main"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _ProcessEnd:
    """Ends the process with the command's exit code, as the last of its exit handlers (they run in reverse order).

    Arrow's threads outlive what they were asked for, and drop the last reference to a Python file or buffer when they
    get to it. Where the interpreter is being finalized by then, CPython ends a thread that asks for its lock by
    unwinding it, which C++ answers with `terminate called without an active exception`: the process of a command that
    has succeeded dies of SIGABRT, or hangs. Such threads can't be joined from Python, so the interpreter is not
    finalized. All that an orderly end has is done by now: threads that are no daemons are joined, exit handlers have
    run, and the output is written here.
    """

    code: int | None = None  # None: the command has not returned, and the interpreter shows why

    def __call__(self, *signal: object) -> None:
        """As a handler of signals too: they come too late to stop anything, but not to be waited for."""
        if self.code is not None:
            from penstock.cli import output

            try:
                output.settle()
            finally:
                os._exit(self.code)


def main() -> int:
    """Import the command line and run it; a signal before the handlers are installed exits cleanly."""
    process_end = _ProcessEnd()
    atexit.register(process_end)
    tokens, _ = without_debug(sys.argv[1:])
    end = end_at_once(tokens)
    before = listen(end, _SIGNALS)
    from penstock.cli.main import main as command_line

    try:
        if not stoppable(tokens):
            restore(before)
        process_end.code = command_line()
        listen(process_end, _SIGNALS)
        return process_end.code
    except KeyboardInterrupt:  # between here and there
        end(0, None)
        raise
