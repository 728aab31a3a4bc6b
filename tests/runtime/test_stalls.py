"""What takes too long is said, and ended where it does not come back: reads, commits, the loop itself."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from run_support import committed, output, pipeline, run, write_rows

from penstock.core.counts import Counts
from penstock.core.events import Tick
from penstock.data.base import Chunk
from penstock.data.lists import ListSource
from penstock.errors import InputError
from penstock.ledger.base import CommitBatch, Receipt
from penstock.runtime.inbox import Inbox
from penstock.runtime.rows.reader import LONGEST_READ_S, SLOW_READ_S, ChunkRead, Reader, SourceFailed
from penstock.runtime.rows.writer import SLOW_COMMIT_S, Writer
from penstock.runtime.watch.signals import Interrupts
from penstock.runtime.watch.stalls import Activity, Stalls, cpu_ns

LIMIT_S = 120.0


def look(stalls: Stalls, seconds: float) -> None:
    for _ in range(int(seconds)):
        stalls.look()


def test_what_goes_on_and_on_is_not_slow() -> None:
    said: list[str] = []
    activity, stalls = Activity(lambda seconds: f"{seconds} s", patience_s=3.0), Stalls(said.append)
    stalls.add(activity)
    for _ in range(10):
        activity.begin()
        look(stalls, 3)
    activity.end()
    look(stalls, 10)
    assert not said and stalls.describe() == ""


def test_what_takes_long_is_said_once_and_shown_while_it_lasts() -> None:
    said: list[str] = []
    activity, stalls = Activity(lambda seconds: f"{seconds} s", patience_s=3.0), Stalls(said.append)
    stalls.add(activity)
    activity.begin()
    look(stalls, 6)
    assert said == ["3 s"] and stalls.describe() == "5 s"
    activity.end()
    stalls.look()
    assert stalls.describe() == ""
    activity.begin()
    look(stalls, 6)
    assert said == ["3 s", "3 s"], "another time is another note"


def test_over_is_called_once_at_its_limit() -> None:
    over: list[int] = []
    activity, stalls = Activity(lambda seconds: "", limit_s=5.0, over=over.append), Stalls(lambda text: None)
    stalls.add(activity)
    activity.begin()
    look(stalls, 20)
    assert over == [5]


def test_who_works_is_not_stalled() -> None:
    """Seeking in a file of a terabyte is one turn, and takes as long as it takes."""
    over: list[int] = []
    work = iter(range(10**6))
    activity = Activity(lambda seconds: "", limit_s=5.0, over=over.append, work=lambda: next(work))
    stalls = Stalls(lambda text: None)
    stalls.add(activity)
    activity.begin()
    look(stalls, 100)
    assert not over


def test_the_work_of_a_thread_is_its_time_on_a_cpu() -> None:
    begun = cpu_ns(threading.get_native_id())
    assert begun > 0
    assert sum(number * number for number in range(100_000)) and cpu_ns(threading.get_native_id()) > begun
    assert cpu_ns(None) == cpu_ns(-1) == 0


def test_an_inbox_that_was_closed_touches_nothing(tmp_path: Path) -> None:
    inbox = Inbox()
    inbox.close()
    with (tmp_path / "other").open("wb") as other:
        inbox.put(Tick())
        assert other.fileno() and (tmp_path / "other").stat().st_size == 0


class Disk(ListSource):
    """A source whose disk fails, or does not come back, at some of its reads."""

    def __init__(self, rows: int, trouble: Callable[[int], None]) -> None:
        super().__init__([{"id": number} for number in range(rows)])
        self._reads, self._trouble = 0, trouble

    def read(self, start: int, skip: Callable[[int], bool] | None, max_rows: int) -> Chunk | None:
        self._reads += 1
        self._trouble(self._reads)
        return super().read(start, skip, max_rows)


def all_rows(inbox: Inbox, reader: Reader) -> tuple[list[object], InputError | None]:
    """What the reader gives until its end or its failure."""
    found: list[object] = []
    reader.want(1, 4, None)
    while True:
        for event in inbox.take():
            if isinstance(event, SourceFailed):
                return found, event.error
            assert isinstance(event, ChunkRead)
            if event.chunk is None:
                return found, None
            found += [row["id"] for row in event.chunk.rows]
            reader.want(1, 4, None)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.runtime.rows.reader.AGAIN_AFTER_S", 0.0)


def reader_of(source: ListSource, inbox: Inbox) -> Reader:
    reader = Reader(source, inbox, 0, set(), 4)
    reader.start()
    return reader


def test_a_disk_that_fails_twice_is_read_again() -> None:
    def fails(read: int) -> None:
        if read in (2, 3):
            raise InputError("Input/output error", passing=True)

    inbox = Inbox()
    reader = reader_of(Disk(12, fails), inbox)
    assert all_rows(inbox, reader) == (list(range(12)), None)
    reader.close()
    inbox.close()


@pytest.mark.parametrize(("passing", "reads"), [(True, 4), (False, 2)])
def test_a_disk_that_fails_again_and_again_ends_the_run(passing: bool, reads: int) -> None:
    asked: list[int] = []

    def fails(read: int) -> None:
        asked.append(read)
        if read > 1:
            raise InputError("Input/output error", passing=passing)

    inbox = Inbox()
    reader = reader_of(Disk(12, fails), inbox)
    rows, error = all_rows(inbox, reader)
    assert rows == [0, 1, 2, 3] and error is not None
    assert len(asked) == reads, "a file that is damaged is not read again"
    reader.close()
    inbox.close()


def test_a_disk_that_does_not_answer_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.runtime.rows.reader.cpu_ns", lambda native_id: 0)  # it may be on its way to hang yet
    back, stuck = threading.Event(), threading.Event()

    def hangs(read: int) -> None:
        if read == 2:
            stuck.set()
            back.wait(LIMIT_S)

    said: list[str] = []
    inbox, stalls = Inbox(), Stalls(said.append)
    reader = reader_of(Disk(12, hangs), inbox)
    stalls.add(reader.reading)
    reader.want(1, 4, None)
    assert stuck.wait(LIMIT_S)
    (first,) = inbox.take()
    assert isinstance(first, ChunkRead)
    look(stalls, SLOW_READ_S + 2)
    assert said == ["list: no data read after row 4 for 30 s; the disk or network does not respond"]
    assert not inbox.take(), "not yet"
    look(stalls, LONGEST_READ_S)
    assert not inbox.take(), "nobody waits for it"
    reader.want(2, 4, None)
    (event,) = inbox.take()
    assert isinstance(event, SourceFailed) and event.cause == 2
    assert str(event.error).startswith("list: no data read after row 4 for 600 s; ")
    assert reader.given_up
    back.set()
    reader.want(3, 4, None)
    assert [item.cause for item in inbox.take()] == [3], "what comes too late is dropped"
    inbox.close()


def test_a_slow_disk_is_waited_for() -> None:
    inbox = Inbox()
    reader = reader_of(Disk(12, lambda read: threading.Event().wait(0.02) and None), inbox)
    assert all_rows(inbox, reader) == (list(range(12)), None)
    reader.close()
    inbox.close()


class SlowLedger:
    """Commits once it is let go."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def commit(self, batch: CommitBatch) -> Receipt:
        self.begun.set()
        self.go_on.wait(LIMIT_S)
        return Receipt(seq=1, rejected=[], part_rows=0, bytes_written=0, took_s=0.0)

    def heartbeat(self) -> None:
        pass


def test_a_commit_that_takes_long_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    ledger, inbox, stalls = SlowLedger(), Inbox(), Stalls(said.append)
    writer = Writer(ledger, inbox, tmp_path)
    stalls.add(writer.committing)
    writer.start()
    look(stalls, 100)
    assert not said, "nothing is being committed"
    writer.commit(1, CommitBatch([], [], [0], 1, 1, Counts()))
    assert ledger.begun.wait(LIMIT_S)
    look(stalls, SLOW_COMMIT_S + 10)
    assert said == [f"a commit has taken 30 s so far: the disk of {tmp_path} is slow or does not respond"]
    assert stalls.describe().startswith("a commit has taken 39 s so far")
    ledger.go_on.set()
    while not inbox.take():
        pass
    writer.close()
    stalls.look()
    assert stalls.describe() == ""
    inbox.close()


def test_a_disk_that_hangs_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.runtime.rows.writer.SHUTDOWN_TIMEOUT_S", 0.05)
    ledger, inbox = SlowLedger(), Inbox()
    writer = Writer(ledger, inbox, tmp_path)
    writer.start()
    writer.commit(1, CommitBatch([], [], [0], 1, 1, Counts()))
    assert ledger.begun.wait(LIMIT_S)
    writer.close()
    assert not ledger.go_on.is_set() and not inbox.take()
    ledger.go_on.set()
    while not inbox.take():
        pass
    inbox.close()


def test_an_error_for_the_loop_is_raised_in_its_thread() -> None:
    inbox = Inbox()
    with Interrupts(inbox) as interrupts:
        threading.Timer(0.05, interrupts.abandon, (InputError("stands still"),)).start()
        with pytest.raises(InputError, match="stands still"):
            threading.Event().wait(LIMIT_S)
        assert interrupts.pending() == "", "it is no interrupt of the user's"
    inbox.close()


LOOP_THAT_HANGS = """
import sys, threading
import penstock.runtime.watch.stalls as stalls, penstock.runtime.watch.watchdog as watchdog
stalls.LOOK_S, watchdog.LOOP_LIMIT_S = 0.1, 3.0
import penstock as ps
seen = 0
def listener(facts):
    global seen
    seen += facts.committed > 0 and facts.status == "running"
    if seen == 1:
        seen += 1
        threading.Event().wait()
pipeline = ps.load_pipeline(open("pipeline.yaml").read(), "pipeline.yaml")
result = ps.run(pipeline, ps.RunOptions(listener=listener, interval_s=0.1, check=False))
print(result.summary["status"], result.exit_code, result.facts.reason)
"""


@pytest.mark.process
def test_a_loop_that_stands_still_ends_the_run(tmp_path: Path) -> None:
    write_rows(tmp_path, 1000)
    pipeline(tmp_path, ms_per_row=20)
    script = [sys.executable, "-c", LOOP_THAT_HANGS]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.startswith("failed 1 the coordinator's loop was blocked for 3 s; "), done.stdout + done.stderr
    log = (tmp_path / "out" / "logs" / "coordinator.log").read_text()
    assert "thread MainThread:" in log and "in listener" in log and "thread penstock-writer:" in log
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["status"] == "failed"
    assert 0 < committed(tmp_path) < 1000
    pipeline(tmp_path)
    assert run(tmp_path) == 0
    assert [row["id"] for row in output(tmp_path)] == list(range(1000))


def test_errors_of_a_disk_may_pass_and_others_do_not() -> None:
    from penstock.data.passing import may_pass

    assert may_pass(OSError(errno.EIO, "Input/output error")) and may_pass(OSError(errno.ESTALE, "Stale file handle"))
    assert not may_pass(OSError(errno.ENOENT, "gone")) and not may_pass(OSError("Corrupt snappy compressed data"))


def test_reading_that_finds_no_row_is_said_though_it_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its CPU time grows, so that it is no stall of the disk; it is said none the less, and ends nothing."""
    busy = iter(range(10**9))
    monkeypatch.setattr("penstock.runtime.rows.reader.cpu_ns", lambda native_id: next(busy))
    reader = Reader(Disk(12, lambda read: None), Inbox(), 3, set(), 4)
    told: list[str] = []
    stalls = Stalls(told.append)
    stalls.add(reader.reading)
    stalls.add(reader.finding)
    reader.reading.begin()
    reader.finding.begin()
    for _ in range(200):
        stalls.look()
    assert told == ["list: 60 s of reading without a row after row 3; still reading"]
    assert not reader.given_up
