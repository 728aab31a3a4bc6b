"""The one sink of the command line: data to stdout, everything else to stderr."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from typing import Any


def data(text: str) -> None:
    """What the command was asked for. A character that stdout's encoding lacks is escaped, not an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout.write(text + "\n")


def json_data(value: Any) -> None:
    """Facts as indented JSON."""
    data(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def note(text: str) -> None:
    """A word beside the data: what is going on, what to try next."""
    sys.stderr.write(text + "\n")


def error(text: str) -> None:
    """One message, each of its lines marked, so that it can be found in a log of several programs."""
    sys.stderr.write("".join(f"penstock: {line}\n" for line in text.splitlines() or [""]))


def table(rows: Sequence[tuple[str, ...]], *, indent: str = "  ") -> str:
    """Rows of one length as aligned text; the last column is not padded."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return "\n".join(
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    )
