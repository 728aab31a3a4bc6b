"""Lines that a host writes to its replica's log."""

from __future__ import annotations

import sys
import traceback

from penstock.redaction import without_secrets

__all__ = ["print_traceback"]


def print_traceback(error: BaseException) -> None:
    """The exception with its causes, without the keys that URLs in it hold."""
    print(without_secrets("".join(traceback.format_exception(error))), end="", file=sys.stderr, flush=True)
