"""A full disk, a failed fsync, a lost reply: at every single operation of a commit."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ledger_support import Coordinator, assert_complete, expected, open_ledger, read_rows

from penstock.errors import CommitError, UsageError
from penstock.ledger.files import Files, FsyncFailed


class FaultyFiles(Files):
    """Counts operations that write, and calls `strike(operation)` before the one with number `at`."""

    def __init__(self, at: int = -1, strike: Callable[[str], None] | None = None) -> None:
        self.at = at
        self.done = 0
        self.strike = strike or (lambda operation: None)

    def _step(self, operation: str) -> None:
        self.done += 1
        if self.done == self.at:
            self.strike(operation)

    def create(self, path: Path) -> Any:
        self._step("create")
        return super().create(path)

    def produce(self, path: Path, write: Callable[[Path], int]) -> int:
        self._step("produce")
        return super().produce(path, write)

    def replace(self, path: Path, data: bytes) -> None:
        self._step("replace")
        super().replace(path, data)

    def link(self, source: Path, target: Path) -> None:
        self._step("link")
        super().link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._step("unlink")
        super().unlink(path)

    def sync_folder(self, path: Path) -> None:
        self._step("sync_folder")
        super().sync_folder(path)


def full(operation: str) -> None:
    if operation == "sync_folder":
        raise FsyncFailed(errno.ENOSPC, "No space left on device")
    raise OSError(errno.ENOSPC, "No space left on device")


def broken(operation: str) -> None:
    raise FsyncFailed(errno.EIO, "Input/output error")


def prepared(out: Path, files: FaultyFiles) -> Coordinator:
    """A run with a live segment, and `files` counting from here; CHOSEN publishes it, drops it, makes another."""
    at, files.at = files.at, -1
    coordinator = Coordinator(open_ledger(out, files=files), 40)
    coordinator.commit([*range(5), *range(20, 25)])
    files.done, files.at = 0, at
    return coordinator


CHOSEN = [*range(5, 20), 30]


def operations_of_a_commit(out: Path) -> int:
    files = FaultyFiles()
    coordinator = prepared(out, files)
    coordinator.commit(CHOSEN)
    done = files.done
    coordinator.ledger.close()
    return done


def test_a_full_disk_at_any_operation_loses_nothing(tmp_path: Path) -> None:
    """Before the entry is linked, the same batch can be committed again; afterwards, the same command goes on."""
    outcomes = set()
    for at in range(1, operations_of_a_commit(tmp_path / "counted") + 1):
        out = tmp_path / str(at)
        files = FaultyFiles(at, full)
        coordinator = prepared(out, files)
        before = read_rows(out)
        batch = coordinator.batch(CHOSEN)
        try:
            coordinator.ledger.commit(batch)
            outcomes.add("harmless")
        except CommitError as error:
            assert error.errno == errno.ENOSPC
            outcomes.add("fatal" if error.fatal else "again")
            if not error.fatal:
                assert read_rows(out) == before
                assert list((out / ".penstock" / "staging").iterdir()) == []
                assert "Free some space" in str(error)
                coordinator.ledger.commit(batch)
            else:
                with pytest.raises(CommitError):
                    coordinator.ledger.commit(batch)
        coordinator.ledger.close()
        with open_ledger(out) as ledger:
            Coordinator(ledger, 40).run()
        assert_complete(out, 40)
    assert outcomes == {"harmless", "fatal", "again"}


def test_a_failed_fsync_is_fatal_wherever_it_happens(tmp_path: Path) -> None:
    for at in range(1, operations_of_a_commit(tmp_path / "counted") + 1):
        out = tmp_path / str(at)
        files = FaultyFiles(at, broken)
        coordinator = prepared(out, files)
        try:
            coordinator.commit(CHOSEN)
        except CommitError as error:
            assert error.fatal and error.errno == errno.EIO
            with pytest.raises(CommitError):
                coordinator.commit([31])
        coordinator.ledger.close()
        with open_ledger(out) as ledger:
            Coordinator(ledger, 40).run()
        assert_complete(out, 40)


def test_a_full_disk_while_a_part_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer of parts fsyncs by itself: no room is no room there too."""
    with open_ledger(tmp_path / "out") as ledger:
        coordinator = Coordinator(ledger, 10)
        batch = coordinator.batch(range(10), final=True)

        def no_room(descriptor: int) -> None:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", no_room)
            with pytest.raises(CommitError, match="quota") as caught:
                ledger.commit(batch)
        assert not caught.value.fatal and caught.value.errno == errno.EDQUOT
        ledger.commit(batch)
    assert_complete(tmp_path / "out", 10)


def test_a_lost_reply_to_a_link_that_succeeded_is_a_win(tmp_path: Path) -> None:
    class LossyFiles(Files):
        def link(self, source: Path, target: Path) -> None:
            super().link(source, target)
            raise FileExistsError(errno.EEXIST, "File exists") if target.parent.name == "manifest" else AssertionError

    with open_ledger(tmp_path / "out") as ledger:
        Coordinator(ledger, 20).commit(range(10))
    with open_ledger(tmp_path / "out", files=LossyFiles()) as ledger:
        Coordinator(ledger, 20).run()
    assert_complete(tmp_path / "out", 20)


def test_an_outcome_that_can_not_be_known_is_fatal(tmp_path: Path) -> None:
    class BlindFiles(Files):
        blind = False

        def link(self, source: Path, target: Path) -> None:
            super().link(source, target)
            if self.blind:
                raise OSError(errno.ETIMEDOUT, "Connection timed out")

        def read(self, path: Path) -> bytes:
            if self.blind and path.parent.name == "manifest" and path.name > "00000002":
                raise OSError(errno.ETIMEDOUT, "Connection timed out")
            return super().read(path)

    files = BlindFiles()
    with open_ledger(tmp_path / "out", files=files) as ledger:
        coordinator = Coordinator(ledger, 20)
        coordinator.commit([0])
        files.blind = True
        with pytest.raises(CommitError, match=r"could not determine whether|timed out") as caught:
            coordinator.commit(range(1, 10))
        assert caught.value.fatal
    with open_ledger(tmp_path / "out") as ledger:
        assert ledger.state.watermark in (1, 10)
        Coordinator(ledger, 20).run()
    assert_complete(tmp_path / "out", 20)


def test_no_room_for_a_new_run(tmp_path: Path) -> None:
    with pytest.raises(CommitError, match="No space left"):
        open_ledger(tmp_path / "out", files=FaultyFiles(10, full))
    with open_ledger(tmp_path / "out") as ledger:
        Coordinator(ledger, 10).run()
    assert_complete(tmp_path / "out", 10)


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="can't make the output folder"):
        open_ledger(tmp_path / "file" / "out")


def test_rows_published_before_a_failure_stay(tmp_path: Path) -> None:
    files = FaultyFiles()
    coordinator = prepared(tmp_path / "out", files)
    files.at, files.strike = files.done + 1, full
    with pytest.raises(CommitError):
        coordinator.commit(range(5, 20))
    coordinator.ledger.close()
    rows, _ = expected(5)
    assert read_rows(tmp_path / "out") == rows


def interrupt(operation: str) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_at_any_operation_leaves_what_may_count(tmp_path: Path) -> None:
    """Not every exception is an error of the disk; none may tidy away the files of an entry that stands."""
    for at in range(1, 100):
        out = tmp_path / str(at)
        files = FaultyFiles(at, interrupt)
        coordinator = prepared(out, files)
        try:
            coordinator.commit(CHOSEN)
        except KeyboardInterrupt:
            pass
        else:
            break
        with open_ledger(out, takeover=True) as ledger:
            Coordinator(ledger, 40).run()
        assert_complete(out, 40)
    assert at > 10
