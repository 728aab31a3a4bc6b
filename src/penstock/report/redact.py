"""Messages of dead rows as they are shown: dead/ has the row and the message whole, everything else neither."""

from __future__ import annotations

import re

import msgspec

from penstock.redaction import Redactor, texts_of

__all__ = ["message_without_row"]

_MARK = "[row]"
_CUT = re.compile(r"\.\.\. \(\d+ characters\)\Z")  # how the row of a dead row ends that is too large to be kept whole
_REDACTOR = Redactor()


def message_without_row(message: str, row: str) -> str:
    """The message of a dead row without what it repeats of the row (JSON text, or what could be read of a line)."""
    try:
        content = msgspec.json.decode(row)
        if isinstance(content, str) and _CUT.search(content):
            return f"(left out: it can't be compared with {_MARK}, which is too large)"
        texts = list(texts_of(content))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        texts = [row]
    return _REDACTOR.redacted(message, texts, _MARK)
