"""The one sink of the command line: data to stdout, everything else to stderr.

Either may be closed, full, or a pipe whose reader has gone. Where data is all that a command is for, that is its
failure (`OutputLost`); what a run did does not change by it, and words on stderr are dropped without a word.

What is written may come from files, functions and services. So whatever acts on a terminal is made visible here, and
keys and passwords are removed from all messages.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from penstock.errors import PenstockError
from penstock.executors.descriptors import occupy_standard
from penstock.redaction import without_secrets
from penstock.terminal import json_visible, visible

_LINE_CHARACTERS = 4_000  # of a message; what is longer was never written for people
_closed = False  # stdout was, when the process began


class OutputLost(PenstockError):
    """stdout can not be written. `quiet`: the reader closed the pipe, and no message is needed."""

    def __init__(self, reason: str, *, quiet: bool = False) -> None:
        super().__init__(f"the output could not be written to stdout: {reason}")
        self.quiet = quiet


def open_standard() -> None:
    """Give a process that was started without stdout or stderr the null device in their place.

    Else the next file that is opened would get such a number, and whatever libraries print there.
    """
    global _closed
    _closed = _closed or sys.stdout is None
    occupy_standard()
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def data(text: str) -> None:
    """What the command was asked for. A character that stdout's encoding lacks is escaped, not an error.

    Raises OutputLost.
    """
    _to_stdout(visible(text))


def styled(text: str) -> None:
    """Data with colours: made by rich from text that `terminal.cleaned` has been through, and from nothing else. Raises
    OutputLost."""
    _to_stdout(text)


def json_data(value: Any) -> None:
    """Facts as indented JSON. Raises OutputLost."""
    _to_stdout(_json(value))


def beside(text: str, instead: str) -> None:
    """Data that comes beside what a command does. Where stdout does not take it the command has still done that:
    `instead` says where else it is to be found."""
    _beside(visible(text), instead)


def json_beside(value: Any, instead: str) -> None:
    """Facts as indented JSON; see `beside`."""
    _beside(_json(value), instead)


def note(text: str) -> None:
    """A message besides the data: progress, next steps."""
    _tell(_message(text) + "\n")


def error(text: str) -> None:
    """One message, each of its lines marked, so that it can be found in a log of several programs."""
    _tell("".join(f"penstock: {line}\n" for line in _message(text).split("\n")))


def traceback() -> None:
    """The exception that is being handled, with its traceback."""
    import traceback

    _tell(visible(without_secrets(traceback.format_exc())))


def _json(value: Any) -> str:
    return json_visible(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _beside(text: str, instead: str) -> None:
    try:
        _to_stdout(text)
    except OutputLost as error:
        if not error.quiet:
            note(f"{error.message}; {instead}")


def _to_stdout(text: str) -> None:
    """Raises OutputLost."""
    if _closed:
        raise OutputLost("it is closed")
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        raise lost(error) from None


def _message(text: str) -> str:
    return "\n".join(_short(line) for line in visible(without_secrets(text)).rstrip("\n").split("\n"))


def _short(line: str) -> str:
    if len(line) <= _LINE_CHARACTERS:
        return line
    end = _LINE_CHARACTERS // 4  # where the reason stands, behind a name that may be endless
    return f"{line[: _LINE_CHARACTERS - end]}… ({len(line):,} characters) …{line[-end:]}"


def _tell(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # nobody hears it; what was done stays done


def lost(error: Exception) -> OutputLost:
    """stdout is given up: what is in its buffer, too, goes nowhere from here on."""
    _silence(sys.stdout)
    if isinstance(error, BrokenPipeError):
        return OutputLost("the reader closed the pipe", quiet=True)
    return OutputLost(getattr(error, "strerror", None) or str(error))


def settle() -> OutputLost | None:
    """Write what is left in the buffers, so that the interpreter's own attempt at its end can't fail, which would
    change the exit code. What became of stdout's, if that could not be written."""
    _flushed(sys.stderr)
    failure = _flushed(sys.stdout)
    return None if failure is None else lost(failure)


def _flushed(stream: TextIO | None) -> Exception | None:
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError) as error:
        _silence(stream)
        return error
    return None


def _silence(stream: TextIO | None) -> None:
    """Turn a stream that can't be written to into the null device, with what its buffer holds."""
    try:
        if stream is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            stream.flush()
    except (OSError, ValueError):
        pass  # no file of the system's, or closed in Python: there is no buffer to fail later


def table(rows: Sequence[tuple[str, ...]], *, indent: str = "  ") -> str:
    """Rows of one length as aligned text; the last column is not padded."""
    rows = [tuple(visible(cell).replace("\n", "\\n") for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return "\n".join(
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    )
