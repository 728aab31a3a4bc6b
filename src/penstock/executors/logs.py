"""The end of a replica's log, as it is shown when the replica has ended."""

from __future__ import annotations

from pathlib import Path

from penstock.engines.causes import cause_lines, read_tail

__all__ = ["TAIL_BYTES", "exit_tail"]

TAIL_BYTES = 4096


def exit_tail(log: Path, start: int) -> str:
    """At most TAIL_BYTES of what was printed from offset `start` on; the errors that it tells come first."""
    text = read_tail(log, start)
    causes = cause_lines(text)
    head = "\n".join(causes[-3:])[: TAIL_BYTES // 2]
    rest = text.encode()[-(TAIL_BYTES - len(head.encode()) - 1) :].decode("utf-8", "ignore")
    return f"{head}\n{rest}" if head else rest
