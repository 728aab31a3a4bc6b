"""Displays: a live view on a terminal, plain lines, JSON lines, or nothing. Data never passes here.

A display receives facts on the run's own thread, so it must not raise; if it can't write, it stops writing.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Literal, Protocol, TextIO, get_args

from penstock.errors import UsageError
from penstock.redaction import without_secrets
from penstock.report import final, jsonlines, plain
from penstock.report.facts import RunFacts
from penstock.report.figures import ENDED
from penstock.terminal import cleaned, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

DisplayKind = Literal["auto", "rich", "plain", "jsonl", "none", "json"]  # json: the name of jsonl until 0.2
PLAIN_INTERVAL_S = 5.0


class Display(Protocol):
    def update(self, facts: RunFacts) -> None:
        """Show these facts, or leave it when the last ones are fresh enough."""
        ...

    def close(self, facts: RunFacts | None, *, again: str | None = None) -> None:
        """End the display. With facts: show how the run ended; `again` is the command that continues it."""
        ...


def choose(kind: DisplayKind, stream: TextIO | None) -> Display:
    """The display of this kind on this stream; "auto" is rich on a capable terminal and plain elsewhere.

    Nothing is shown if the process has no stderr (None). Raises UsageError for another kind.
    """
    if kind not in get_args(DisplayKind):
        raise UsageError(f"expected auto, rich, plain, jsonl or none, got {kind!r}", where="display")
    if kind == "json":
        warnings.warn("display 'json' is deprecated; use 'jsonl'", DeprecationWarning, stacklevel=2)
    if stream is None or stream.closed:
        return NoDisplay()
    if kind == "auto":
        kind = "rich" if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" else "plain"
    match kind:
        case "rich":
            return RichDisplay(stream)
        case "jsonl" | "json":
            return JsonDisplay(stream)
        case "none":
            return NoDisplay()
        case _:
            return PlainDisplay(stream)


class _Lines:
    """Whole lines to a stream that may go away (a closed pipe, a full disk): then nothing more is written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    def write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None


class PlainDisplay:
    """One line when the status changes, and one per interval of the run's own time."""

    def __init__(self, stream: TextIO, interval_s: float = PLAIN_INTERVAL_S) -> None:
        self._lines = _Lines(stream)
        self._interval_s = interval_s
        self._shown: tuple[str, float] | None = None

    def update(self, facts: RunFacts) -> None:
        if facts.status in ENDED:  # the closing lines tell it
            return
        if self._shown is not None:
            status, at_s = self._shown
            if status == facts.status and facts.wall_s - at_s < self._interval_s:
                return
        self._shown = (facts.status, facts.wall_s)
        self._lines.write(visible(without_secrets(plain.line(facts))))

    def close(self, facts: RunFacts | None, *, again: str | None = None) -> None:
        if facts is not None:
            self._lines.write(visible(without_secrets(final.closing(facts, again=again))))


class JsonDisplay:
    """One JSON object per update; the last one, and only it, has a final status."""

    def __init__(self, stream: TextIO) -> None:
        self._lines = _Lines(stream)

    def update(self, facts: RunFacts) -> None:
        if facts.status not in ENDED:
            self._lines.write(jsonlines.line(facts))

    def close(self, facts: RunFacts | None, *, again: str | None = None) -> None:
        if facts is not None:
            self._lines.write(jsonlines.line(facts))


class NoDisplay:
    def update(self, facts: RunFacts) -> None:
        pass

    def close(self, facts: RunFacts | None, *, again: str | None = None) -> None:
        pass


class RichDisplay:
    """A live view, redrawn in place and replaced by the closing lines at the end."""

    def __init__(self, stream: TextIO) -> None:
        self._lines = _Lines(stream)
        self._console = _console(stream)
        self._live: Live | None = None

    def update(self, facts: RunFacts) -> None:
        from penstock.report.rich_view import view

        if facts.status in ENDED:
            return
        try:
            if self._live is None:
                self._live = self._start()
            size = self._console.size
            self._live.update(view(cleaned(facts), width=size.width, height=size.height), refresh=True)
        except (OSError, ValueError):
            self._live = None

    def _start(self) -> Live:
        from rich.live import Live

        # No refresh thread: the run's own thread tells us often enough.
        live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        live.start()
        # A killed process could not give the cursor back, so it is never taken.
        self._console.show_cursor(True)
        return live

    def close(self, facts: RunFacts | None, *, again: str | None = None) -> None:
        if self._live is not None:
            try:
                self._live.stop()
            except (OSError, ValueError):
                pass
            self._live = None
        if facts is not None:
            self._lines.write(visible(without_secrets(final.closing(facts, again=again))))


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    class CarefulConsole(Console):
        def on_broken_pipe(self) -> None:
            # rich would turn stdout into /dev/null and end the process.
            raise BrokenPipeError

    return CarefulConsole(file=stream)
