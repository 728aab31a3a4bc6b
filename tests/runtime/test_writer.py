"""The writer on a disk that is full: it waits, says what it needs, and loses nothing."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from penstock.core.counts import Counts
from penstock.errors import CommitError
from penstock.ledger.base import CommitBatch, Finished, Receipt
from penstock.runtime.inbox import Inbox
from penstock.runtime.rows.writer import BatchCommitted, Writer

LIMIT_S = 120.0


class FullDisk:
    """Has no room until `room` is set."""

    def __init__(self) -> None:
        self.room = threading.Event()
        self.refused = threading.Event()
        self.committed: list[CommitBatch] = []

    def commit(self, batch: CommitBatch) -> Receipt:
        if not self.room.is_set():
            self.refused.set()
            raise CommitError("no room", errno=errno.ENOSPC, fatal=False)
        self.committed.append(batch)
        return Receipt(seq=1, rejected=[], part_rows=0, bytes_written=0, took_s=0.0)

    def heartbeat(self) -> None:
        pass


def batch(rows: int) -> CommitBatch:
    return CommitBatch(
        finished=[Finished(number, (), {"text": "x" * 1000}) for number in range(rows)],
        dead=[],
        ended=range(rows),
        watermark=rows,
        publish_to=rows,
        counts=Counts(),
    )


def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.runtime.rows.writer.RETRY_FULL_DISK_S", 0.01)
    disk, inbox = FullDisk(), Inbox()
    writer = Writer(disk, inbox, tmp_path)
    writer.start()
    writer.commit(7, batch(2000))
    assert disk.refused.wait(LIMIT_S)
    while not writer.waiting:
        assert not disk.committed
    assert writer.waiting.startswith("disk full: 2,000 rows waiting, up to 2.1 MB needed, ")
    assert writer.waiting.endswith(f" free in {tmp_path}")
    disk.room.set()
    while not (events := inbox.take()):
        pass
    (event,) = events
    assert isinstance(event, BatchCommitted) and event.cause == 7
    assert writer.waiting == "" and len(disk.committed) == 1
    writer.close()
    inbox.close()


def test_a_commit_that_computes_is_no_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(FullDisk(), Inbox(), tmp_path)
    writer._rows = 1234
    monkeypatch.setattr("penstock.runtime.rows.writer.cpu_ns", lambda native_id: 30 * 10**9)
    assert writer.committing.describe(40) == ("a commit of 1,234 rows has taken 40 s so far: encoding large rows")
    assert "is slow or does not respond" in writer.committing.describe(100)
