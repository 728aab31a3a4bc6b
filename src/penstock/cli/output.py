"""The one sink of the command line: data to stdout, everything else to stderr.

What is written may come from files, functions and services. So whatever acts on a terminal is made visible here, and
messages lose their keys and passwords, whoever made the text.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from typing import Any

from penstock.redaction import without_secrets
from penstock.terminal import json_visible, visible

_LINE_CHARACTERS = 4_000  # of a message; what is longer was never written for people


def data(text: str) -> None:
    """What the command was asked for. A character that stdout's encoding lacks is escaped, not an error."""
    _to_stdout(visible(text))


def styled(text: str) -> None:
    """Data with colours: made by rich from text that `terminal.cleaned` has been through, and from nothing else."""
    _to_stdout(text)


def json_data(value: Any) -> None:
    """Facts as indented JSON."""
    _to_stdout(json_visible(json.dumps(value, indent=2, ensure_ascii=False, default=str)))


def note(text: str) -> None:
    """A word beside the data: what is going on, what to try next."""
    sys.stderr.write(_message(text) + "\n")


def error(text: str) -> None:
    """One message, each of its lines marked, so that it can be found in a log of several programs."""
    sys.stderr.write("".join(f"penstock: {line}\n" for line in _message(text).split("\n")))


def traceback() -> None:
    """The exception that is being handled, with its traceback."""
    import traceback

    sys.stderr.write(visible(without_secrets(traceback.format_exc())))


def _message(text: str) -> str:
    return "\n".join(_short(line) for line in visible(without_secrets(text)).rstrip("\n").split("\n"))


def _short(line: str) -> str:
    if len(line) <= _LINE_CHARACTERS:
        return line
    end = _LINE_CHARACTERS // 4  # where the reason stands, behind a name that may be endless
    return f"{line[: _LINE_CHARACTERS - end]}… ({len(line):,} characters) …{line[-end:]}"


def _to_stdout(text: str) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout.write(text + "\n")


def table(rows: Sequence[tuple[str, ...]], *, indent: str = "  ") -> str:
    """Rows of one length as aligned text; the last column is not padded."""
    rows = [tuple(visible(cell).replace("\n", "\\n") for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return "\n".join(
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    )
