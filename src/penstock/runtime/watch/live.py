"""The current state of a run, for `penstock status` in another terminal: a small file, replaced every two seconds.

It only advises: what is durable is the ledger's. A disk that does not take it costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from penstock.report.facts import RunFacts
from penstock.runtime.watch.log_writer import LogWriter

__all__ = ["Live", "live_listener", "live_path", "read_live"]

EVERY_S = 2.0
FRESH_S = 15.0  # older than that, and the run has ended or stands still


class Live(msgspec.Struct):
    """written: wall clock, seconds since 1970."""

    written: float
    facts: RunFacts


def live_path(out_dir: Path) -> Path:
    return out_dir / ".penstock" / "live.json"


def live_listener(
    out_dir: Path, listener: Callable[[RunFacts], None], log_writer: LogWriter
) -> Callable[[RunFacts], None]:
    """A listener that also has the file written, at most every EVERY_S seconds."""
    path = live_path(out_dir)
    due = 0.0

    def tell(facts: RunFacts) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + EVERY_S
            log_writer.replace(path, msgspec.json.encode(Live(time.time(), facts)))
        listener(facts)

    return tell


def read_live(out_dir: Path) -> RunFacts | None:
    """The facts of a run that is at work; None where there are none, or none of late."""
    try:
        live = msgspec.json.decode(live_path(out_dir).read_bytes(), type=Live)
    except (OSError, msgspec.DecodeError):
        return None
    return live.facts if time.time() - live.written <= FRESH_S else None
