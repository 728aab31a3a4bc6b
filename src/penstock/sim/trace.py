"""A record of all that was said to the core and by it, as lines and as one hash: equal runs have equal traces."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from penstock.core.events import Event, Instruction

__all__ = ["Trace"]


class Trace:
    """`tell`: gets each line as it comes, or None."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell
        self._hash = blake2b(digest_size=16)

    def event(self, now: float, event: Event) -> None:
        self._line(f"{now:10.4f}  > {event!r}")

    def instruction(self, now: float, instruction: Instruction) -> None:
        self._line(f"{now:10.4f}  < {instruction!r}")

    def note(self, now: float, text: str) -> None:
        self._line(f"{now:10.4f}  * {text}")

    def _line(self, line: str) -> None:
        self._hash.update(line.encode())
        if self._tell is not None:
            self._tell(line)

    def digest(self) -> str:
        return self._hash.hexdigest()
