"""Who may work on a run: refusals, take-overs, and coordinators that wake up too late."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_support import Coordinator, assert_complete, open_ledger
from test_faults_of_the_disk import FaultyFiles

from example_counts import examples
from penstock.errors import CommitError, Fenced, RunOwned
from penstock.ledger import owner, read_run
from penstock.ledger.files import Files
from penstock.ledger.owner import OwnerRecord, is_alive, read_owner, this_process


def change(record: OwnerRecord, **fields: object) -> OwnerRecord:
    return msgspec.structs.replace(record, **fields)


def test_a_live_owner_on_this_host_is_not_disturbed(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "out"):
        with pytest.raises(RunOwned, match=rf"process {os.getpid()} on host .*--takeover"):
            open_ledger(tmp_path / "out")
        assert read_run(tmp_path / "out").owner_alive
    assert not read_run(tmp_path / "out").owner_alive
    with open_ledger(tmp_path / "out") as ledger:
        assert ledger.state.epoch == 2


def test_an_owner_that_ended_on_this_host_is_replaced_silently(tmp_path: Path) -> None:
    open_ledger(tmp_path / "out")  # never closed
    path = tmp_path / "out" / ".penstock" / "owner.json"
    record = read_owner(Files(), path)
    assert record is not None
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    path.write_bytes(msgspec.json.encode(change(record, pid=int(child.stdout))))
    with open_ledger(tmp_path / "out") as ledger:
        assert ledger.state.epoch == 2


@pytest.mark.parametrize(
    ("fields", "age_s", "alive"),
    [
        ({}, 0, True),
        ({}, 10_000, True),  # it may be stopped, or its clock wrong: the process is there
        ({"started": 1}, 0, False),  # another process got its number
        ({"boot": "another"}, 0, False),
        ({"host": "elsewhere"}, 10, True),
        ({"host": "elsewhere", "boot": "another"}, 59, True),
        ({"host": "elsewhere", "boot": "another"}, 61, False),
        ({"host": "elsewhere", "boot": "another"}, -100, True),  # a clock ahead of ours
        ({"namespace": "pid:[1]"}, 10, True),  # another container of this host
        ({"namespace": "pid:[1]"}, 61, False),
    ],
)
def test_who_is_alive(fields: dict[str, object], age_s: float, alive: bool) -> None:
    record = change(this_process(1), **fields)
    assert is_alive(record, record.heartbeat + age_s) is alive


@pytest.mark.parametrize(("ahead_s", "words"), [(30, "last heartbeat 0 s ago"), (90_000, "90,000 s in the future")])
def test_a_clock_that_is_ahead_is_told_as_that(ahead_s: float, words: str, tmp_path: Path) -> None:
    """Whether that process is alive can't be told; the run is not taken from it without being asked to."""
    open_ledger(tmp_path / "out")  # never closed
    elsewhere = change(this_process(1), host="elsewhere", heartbeat=1000.0 + ahead_s)
    with pytest.raises(RunOwned) as raised:
        owner.refuse_if_owned(elsewhere, tmp_path, 1000.0)
    assert words in str(raised.value) and "--takeover" in str(raised.value)
    assert ("clocks" in str(raised.value)) is (ahead_s > 60)


def test_a_clock_that_is_ahead_stops_no_takeover(tmp_path: Path) -> None:
    open_ledger(tmp_path / "out")  # never closed
    path = tmp_path / "out" / ".penstock" / "owner.json"
    ahead = change(this_process(1), host="elsewhere", heartbeat=time.time() + 90_000)
    path.write_bytes(msgspec.json.encode(ahead))
    with pytest.raises(RunOwned, match="clocks of the two hosts differ"):
        open_ledger(tmp_path / "out")
    with open_ledger(tmp_path / "out", takeover=True) as ledger:
        assert ledger.state.epoch == 2


def test_a_process_of_this_host_is_looked_at_whatever_its_clock_said(tmp_path: Path) -> None:
    ended = change(this_process(1), started=1, heartbeat=90_000.0)
    owner.refuse_if_owned(ended, tmp_path, 0.0)
    assert owner.clock_ahead_s(ended, 0.0) is None


def test_a_process_that_ended_but_was_not_reaped_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owner._started(child.pid) is None
    child.wait()


def test_a_torn_owner_record_stops_nobody(tmp_path: Path) -> None:
    open_ledger(tmp_path / "out")
    (tmp_path / "out" / ".penstock" / "owner.json").write_bytes(b'{"token": "ab')
    with open_ledger(tmp_path / "out") as ledger:
        assert ledger.state.epoch == 2


def test_who_was_taken_over_from_is_fenced(tmp_path: Path) -> None:
    old = Coordinator(open_ledger(tmp_path / "out"), 60)
    old.commit(range(10))
    with open_ledger(tmp_path / "out", takeover=True) as ledger:
        for _ in range(2):
            with pytest.raises(Fenced, match="epoch 2, ours is 1"):
                old.commit(range(10, 20))
        successor = Coordinator(ledger, 60)
        successor.commit(range(10, 15))
        old.ledger.close()
        assert read_run(tmp_path / "out").owner_alive  # closing takes away one's own record only
        successor.run()
    assert_complete(tmp_path / "out", 60)


def test_a_heartbeat_is_renewed_and_notices_the_successor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = open_ledger(tmp_path / "out")
    path = tmp_path / "out" / ".penstock" / "owner.json"
    begin = read_owner(Files(), path)
    assert begin is not None
    old.heartbeat()
    assert read_owner(Files(), path) == begin  # too soon to be worth a write
    monkeypatch.setattr(time, "time", lambda: begin.heartbeat + 30)
    old.heartbeat()
    assert read_owner(Files(), path) == change(begin, heartbeat=begin.heartbeat + 30)
    monkeypatch.setattr(time, "time", lambda: begin.heartbeat + 60)
    with open_ledger(tmp_path / "out", takeover=True), pytest.raises(Fenced, match="taken over this run"):
        old.heartbeat()


def test_a_successor_that_has_ended_is_noticed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was suspended may wake when all is done, with nothing to commit: it finds out, and claims nothing."""
    old = open_ledger(tmp_path / "out")
    with open_ledger(tmp_path / "out", takeover=True) as successor:
        Coordinator(successor, 10).run()
    path = tmp_path / "out" / ".penstock" / "owner.json"
    begun = time.time()
    monkeypatch.setattr(time, "time", lambda: begun + 30)
    with pytest.raises(Fenced, match="taken over this run"):
        old.heartbeat()
    assert not path.exists()
    with pytest.raises(Fenced):
        Coordinator(old, 10).commit([0])


def test_a_ledger_that_was_closed_takes_no_more(tmp_path: Path) -> None:
    """A thread that was left behind in a commit may come back when the run has been given up."""
    ledger = open_ledger(tmp_path / "out")
    coordinator = Coordinator(ledger, 10)
    ledger.close()
    with pytest.raises(CommitError, match="closed"):
        coordinator.commit([0])
    ledger.heartbeat()
    assert not (tmp_path / "out" / ".penstock" / "owner.json").exists()


def test_a_commit_is_a_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_ledger(tmp_path / "out") as ledger:
        begun = time.time()
        monkeypatch.setattr(time, "time", lambda: begun + 30)
        Coordinator(ledger, 10).commit([0])
        record = read_run(tmp_path / "out").owner
        assert record is not None and record.heartbeat == begun + 30


def test_a_heartbeat_on_a_full_disk_is_forgiven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FaultyFiles()
    with open_ledger(tmp_path / "out", files=files) as ledger:
        begun = time.time()
        monkeypatch.setattr(time, "time", lambda: begun + 30)

        def fail(operation: str) -> None:
            raise OSError(28, "No space left on device")

        files.at, files.strike = files.done + 1, fail
        ledger.heartbeat()
        assert files.done == files.at


def race(out: Path, at: int, successor: Callable[[], None]) -> bool:
    """A coordinator in whose operation number `at` everything stops while `successor` works; True when fenced."""
    files = FaultyFiles(at, lambda operation: successor())
    ledger = open_ledger(out, files=files)
    coordinator = Coordinator(ledger, 60)
    if ledger.state.finished:
        return False  # by the successor, before our own claim
    try:
        coordinator.commit([*range(10), *range(30, 35)])
        coordinator.commit([*range(10, 20), *range(25, 30)])
        coordinator.commit(coordinator.remaining())
        coordinator.commit([], final=True)
    except Fenced:
        return True
    finally:
        coordinator.ledger.close()
    return False


@settings(max_examples=examples(100), deadline=None)
@given(at=st.integers(8, 70), finishes=st.booleans())
def test_suspended_at_any_operation_while_another_takes_over(at: int, finishes: bool) -> None:
    """One of the two ends the run, the other is fenced or had ended it; each row stands there once, in order."""
    with tempfile.TemporaryDirectory() as folder, mock.patch("os.fsync"):
        out = Path(folder) / "out"

        def successor() -> None:
            with open_ledger(out, takeover=True) as ledger:
                if finishes:
                    Coordinator(ledger, 60).run()

        try:
            race(out, at, successor)
        except RunOwned:
            pass  # suspended before its own claim
        with open_ledger(out, takeover=True) as ledger:
            Coordinator(ledger, 60).run()
        assert_complete(out, 60)


def test_of_two_starts_at_once_one_is_refused(tmp_path: Path) -> None:
    """The other claims the run after we looked for an owner and before we claim it."""
    out = tmp_path / "out"
    winners = []
    files = FaultyFiles()

    class Late(FaultyFiles):
        def link(self, source: Path, target: Path) -> None:
            if target.parent.name == "manifest" and not winners:
                winners.append(open_ledger(out, files=files))
            super().link(source, target)

    with pytest.raises(RunOwned, match="just started"):
        open_ledger(out, files=Late())
    Coordinator(winners[0], 20).run()
    winners[0].close()
    assert_complete(out, 20)


def test_a_claim_that_loses_to_the_older_coordinator_goes_on_top_of_it(tmp_path: Path) -> None:
    """The old one commits while the new one is about to claim: nothing of that commit is lost."""
    out = tmp_path / "out"
    old = Coordinator(open_ledger(out), 60)
    commits = iter([range(10), range(10, 20)])

    class Late(Files):
        def link(self, source: Path, target: Path) -> None:
            chosen = next(commits, None)
            if chosen is not None:
                old.commit(chosen)
            super().link(source, target)

    with open_ledger(out, takeover=True, files=Late()) as ledger:
        assert (ledger.state.watermark, ledger.state.epoch) == (20, 2)
        with pytest.raises(Fenced):
            old.commit([20])
        Coordinator(ledger, 60).run()
    assert_complete(out, 60)


def test_a_finished_run_is_owned_by_the_first_that_has_work_to_do(tmp_path: Path) -> None:
    """Both have opened it unclaimed, as who has nothing to do leaves it."""
    with open_ledger(tmp_path / "out") as ledger:
        Coordinator(ledger, 20).run()
    with open_ledger(tmp_path / "out") as idle:
        assert idle.state.finished and idle.state.epoch == 1, "nothing was written"
    with open_ledger(tmp_path / "out") as first, open_ledger(tmp_path / "out") as second:
        first.claim()
        first.claim()
        with pytest.raises(RunOwned, match="another process has just updated this run"):
            second.claim()
        with pytest.raises(RunOwned, match=rf"process {os.getpid()} on host"):
            open_ledger(tmp_path / "out")
        first.heartbeat()
    assert not read_run(tmp_path / "out").owner_alive
