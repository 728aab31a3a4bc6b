"""A thread that writes the run's log and what `penstock status` shows, so that a slow disk does not block the loop."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from penstock.faults import fault

__all__ = ["LogWriter"]

_SHUTDOWN_TIMEOUT_S = 2.0  # how long close() waits for the remaining lines


class LogWriter:
    """Lines to append to `log`, and one small file of which only the last content counts."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._lines: list[str] = []
        self._latest: tuple[Path, bytes] | None = None
        self._closing = False
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None

    def append(self, line: str) -> None:
        with self._wake:
            self._lines.append(line)
            self._rouse()

    def replace(self, path: Path, content: bytes) -> None:
        """Write `content` to `path`, so that a reader sees the old one or the new one, whole."""
        with self._wake:
            self._latest = path, content
            self._rouse()

    def _rouse(self) -> None:
        if self._thread is None:  # most runs that end at once have nothing to say
            self._thread = threading.Thread(target=self._work, name="penstock-log_writer", daemon=True)
            self._thread.start()
        self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(_SHUTDOWN_TIMEOUT_S)

    def _work(self) -> None:
        while True:
            with self._wake:
                while not (self._lines or self._latest or self._closing):
                    self._wake.wait()
                lines, self._lines = self._lines, []
                latest, self._latest = self._latest, None
                if not lines and latest is None:
                    return
            with suppress(OSError):  # the display has it as well
                self._write(lines, latest)

    def _write(self, lines: list[str], latest: tuple[Path, bytes] | None) -> None:
        if latest is not None:
            path, content = latest
            temporary = path.with_name(path.name + ".new")
            temporary.write_bytes(content)
            temporary.rename(path)
            fault("live.written")
        if lines:
            with self._log.open("a", encoding="utf-8", errors="backslashreplace") as log:
                log.writelines(lines)
