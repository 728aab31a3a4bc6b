"""The entry point `penstock`: commands by name, imported when called, and the one place where errors are shown. Exit
codes are those of `penstock.errors.ExitCode`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from cyclopts import App, CycloptsError, Parameter

from penstock.cli import output
from penstock.cli.interrupted import DEBUG_FLAG, end_at_once, ending, listen, restore, stoppable, without_debug
from penstock.errors import ExitCode, PenstockError
from penstock.redaction import without_secrets

# name -> (import path, help). The help stands here so that `penstock --help` imports no command.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("penstock.cli.run:run", "Run a pipeline. Run the same command again to resume it."),
    "plan": ("penstock.cli.plan:plan", "Show the placement of models and the reasons for it, without loading them."),
    "retry": (
        "penstock.cli.retry:retry",
        "Retry the dead rows of a finished run: all of them, or those with given codes.",
    ),
    "preview": ("penstock.cli.preview:preview", "Run the first rows through every step and print the result."),
    "status": ("penstock.cli.status:status", "Show the state of a run."),
    "doctor": (
        "penstock.cli.doctor:doctor",
        "Show hardware, installed engines, and how to install missing ones.",
    ),
    "demo": ("penstock.cli.demo:demo", "Run an example pipeline on Python source found on this machine."),
}


def _version() -> str:
    from penstock import __version__

    return __version__


def build_app(called: str | None = None) -> App:
    """The commands. The help of the one that is `called` is its docstring, which is more detailed."""
    app = App(
        name="penstock",
        help="Run datasets through models on every accelerator you have, and keep each of them full.",
        # Rendering Markdown takes a library of its own, which the list of commands can do without.
        help_format="markdown" if called in COMMANDS else "plaintext",
        help_epilogue=f"{DEBUG_FLAG}, in any command, shows the traceback of an error.",
        version=_version,
        default_parameter=Parameter(negative=(), show_default=False),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for place, (name, (import_path, help_text)) in enumerate(COMMANDS.items()):
        app.command(import_path, name=name, help=None if name == called else help_text, sort_key=place)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors end here, in one message each."""
    tokens, debug = without_debug(sys.argv[1:] if argv is None else argv)
    # Arrow's own allocator keeps what it frees, beside the allocator of all else: memory would move by tens of MB. Read
    # by pyarrow when it is loaded.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    output.open_standard()
    signals = _Signals(tokens)
    try:
        code = build_app(next(iter(tokens), None))(tokens, exit_on_error=False, print_error=False)
        if isinstance(code, int):
            return code
        failure = output.settle()  # of a help text; commands see to what they write themselves
        return 0 if failure is None else _output_lost(failure)
    except (KeyboardInterrupt, Exception) as error:
        if signals.caught or isinstance(error, KeyboardInterrupt):  # libraries make other errors of an interrupt
            return _interrupted(tokens)
        return _failed(error, tokens, debug=debug)
    finally:
        signals.close()
        output.settle()


def _failed(error: Exception, tokens: list[str], *, debug: bool) -> int:
    """Tell an error in one message; the exit code that goes with it."""
    if isinstance(error, CycloptsError):
        return _usage(error, tokens)
    if isinstance(error, OSError) and _asks_for_help(tokens):
        error = output.lost(error)
    if isinstance(error, output.OutputLost):
        return _output_lost(error)
    if isinstance(error, PenstockError):
        if debug:
            output.traceback()
        output.error(str(error))
        return error.exit_code
    return _unexpected(error, debug=debug)


def _asks_for_help(tokens: list[str]) -> bool:
    """Whether all that the command line does is to print a text, which a library does."""
    return not tokens or not {"--help", "-h", "--version"}.isdisjoint(tokens)


def _usage(error: CycloptsError, tokens: list[str]) -> int:
    command = next((token for token in tokens if token in COMMANDS), None)
    output.error(" ".join(str(error).split()))
    output.note(f"Try `penstock {command} --help`." if command else "Try `penstock --help`.")
    return ExitCode.USAGE


class _Interrupted(KeyboardInterrupt):
    """Of a class of its own: `python -m` takes note of a plain KeyboardInterrupt that passes through an `exec` of text,
    as imports of dataclasses do, and ends by SIGINT in the end, whatever exit code it is given."""


class _Signals:
    """Takes the signals where no run takes them. Before a run, which leaves nothing half done, they end the process at
    once; what another command does is unwound, and a second signal ends that."""

    def __init__(self, tokens: list[str]) -> None:
        self.caught = False
        self._end = end_at_once(tokens)
        self._unwinds = not stoppable(tokens)
        numbers = (signal.SIGINT,) if self._unwinds else (signal.SIGINT, signal.SIGTERM)
        main_thread = threading.current_thread() is threading.main_thread()
        self._before = listen(self._catch, numbers) if main_thread else {}

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.caught or not self._unwinds:
            self._end(number, frame)
        self.caught = True
        raise _Interrupted

    def close(self) -> None:
        restore(self._before)


def _interrupted(tokens: list[str]) -> int:
    message, code = ending(tokens)
    output.error(message)
    return code


def _output_lost(failure: output.OutputLost) -> int:
    """A reader that closed stdout early (`| head`) gets no message."""
    if not failure.quiet:
        output.error(failure.message)
    return failure.exit_code


def _unexpected(error: Exception, *, debug: bool) -> int:
    """Report an unexpected error: one line, and a file with the traceback."""
    what = f"unexpected error: {type(error).__name__}: {error}"
    if debug:
        output.traceback()
        output.error(what)
    else:
        output.error(f"{what} (traceback in {_keep_traceback()}; {DEBUG_FLAG} shows it)")
    return ExitCode.FAILED


def _keep_traceback() -> str:
    import tempfile
    import traceback

    try:
        with tempfile.NamedTemporaryFile("w", prefix="penstock-error-", suffix=".log", delete=False) as file:
            file.write(without_secrets(traceback.format_exc()))
            return file.name
    except OSError as error:
        return f"no file: {error.strerror}"
