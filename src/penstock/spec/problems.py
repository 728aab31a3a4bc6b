"""Errors of a specification, with one message for files and for Python.

A problem keeps the path of keys that leads to it, so that the loader can find its line. Python callers see the same
sentences with the path in place of a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from penstock.errors import ConfigError
from penstock.redaction import masked

KeyPath = tuple[str | int, ...]

SHOWN_CHARACTERS = 60  # of a bad value in a message: enough to recognise it, short enough for one line


class Problem(NamedTuple):
    path: KeyPath
    message: str

    def under(self, *prefix: str | int) -> Problem:
        return Problem((*prefix, *self.path), self.message)


class InvalidSpec(ConfigError):
    """One or more problems of one specification object."""

    def __init__(self, subject: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        entries = [(dotted((subject, *problem.path)), problem.message) for problem in self.problems]
        super().__init__(joined(entries), where=entries[0][0])


def config_error(entries: Iterable[tuple[str, str]]) -> ConfigError:
    """One error of several (where, message) pairs; printed, each stands on a line with its own place."""
    unique = list(dict.fromkeys(entries))
    return ConfigError(joined(unique), where=unique[0][0])


def joined(entries: Sequence[tuple[str, str]]) -> str:
    first, *rest = entries
    return "\n".join([first[1], *(f"{where}: {message}" for where, message in rest)])


def dotted(path: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in path)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name most like `word`, or None where nothing is near."""
    lowered = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or else the whole list of what is known."""
    names = list(known)
    near = nearest(word, names)
    if near is not None:
        return f"; did you mean '{near}'?"
    return f" (known: {', '.join(names)})" if names else ""


def shown(value: object) -> str:
    """A bad value for a message: its beginning, and its type where that is the point. Keys in it are masked."""
    if value is None:
        return "nothing"
    text = repr(masked(value))
    if len(text) > SHOWN_CHARACTERS:
        text = text[: SHOWN_CHARACTERS - 3] + "..."
    return text
