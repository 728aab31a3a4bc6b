"""The last lines of a replica's log, shown after it has exited."""

from __future__ import annotations

from pathlib import Path

from penstock.file_names import file_name
from penstock.host.causes import cause_lines, read_tail

__all__ = ["TAIL_BYTES", "exit_tail", "log_of"]

TAIL_BYTES = 4096


def log_of(folder: Path, replica: str) -> Path:
    """Where a replica's log lies. Its id begins with a name from the pipeline, which may hold anything."""
    return folder / f"{file_name(replica)}.log"


def exit_tail(log: Path, start: int) -> str:
    """At most TAIL_BYTES of what was printed from offset `start` on; the errors that it tells come first."""
    text = read_tail(log, start)
    causes = cause_lines(text)
    head = "\n".join(causes[-3:])[: TAIL_BYTES // 2]
    rest = text.encode()[-(TAIL_BYTES - len(head.encode()) - 1) :].decode("utf-8", "ignore")
    return f"{head}\n{rest}" if head else rest
