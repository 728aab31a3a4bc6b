"""The ledger with the data room's own table builder and writers, in each format of the sink."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from ledger_support import READERS, Coordinator, dead_ordinals, expected, finished, open_ledger

from penstock.core.counts import Counts
from penstock.data.columns import TableBuilder
from penstock.errors import UsageError
from penstock.ledger.base import CommitBatch, Finished
from penstock.ledger.files import Files

SOURCE = pa.schema([("n", pa.int64())])


def columns(fixed: pa.Schema | None) -> TableBuilder:
    return TableBuilder(SOURCE) if fixed is None else TableBuilder.from_fixed(fixed)


@pytest.mark.parametrize("sink_format", list(READERS))
def test_a_run_in_each_format(tmp_path: Path, sink_format: str) -> None:
    for stop in (25, 60):
        with open_ledger(tmp_path / "out", sink_format=sink_format, table=columns) as ledger:
            coordinator = Coordinator(ledger, 60)
            coordinator.commit([position for position in coordinator.remaining() if position < stop and position != 7])
    with open_ledger(tmp_path / "out", sink_format=sink_format, table=columns) as ledger:
        Coordinator(ledger, 60).run()
    rows, lost = expected(60)
    parts = sorted((tmp_path / "out" / "data").iterdir())
    assert [row for part in parts for row in READERS[sink_format](part)] == rows
    assert dead_ordinals(tmp_path / "out") == lost


@pytest.mark.parametrize("sink_format", list(READERS))
def test_an_empty_run_in_each_format(tmp_path: Path, sink_format: str) -> None:
    with open_ledger(tmp_path / "out", sink_format=sink_format, table=columns) as ledger:
        Coordinator(ledger, 0).commit([], final=True)
    (part,) = (tmp_path / "out" / "data").iterdir()
    assert READERS[sink_format](part) == []


def test_columns_fixed_by_one_process_bind_the_next(tmp_path: Path) -> None:
    """A late change of type is a dead row after a resume too."""
    with open_ledger(tmp_path / "out", table=columns) as ledger:
        Coordinator(ledger, 3).commit([0, 1])
    with open_ledger(tmp_path / "out", table=columns) as ledger:
        row = Finished(2, (), {"n": 2, "text": 3.5})
        receipt = ledger.commit(CommitBatch([row], [], [2], 3, 3, Counts(out=3), 3, True))
    assert [(item.code, item.position) for item in receipt.rejected] == [("encode_error", 2)]
    assert "'text'" in receipt.rejected[0].message
    assert receipt.counts == Counts(out=2, dead=1, dead_sources=1)


def test_a_row_that_json_can_not_show_can_die_too(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "out", table=columns) as ledger:
        rows = [finished(0), Finished(1, (), {"n": "\ud800", "text": {1, 2}, "extra": 10**40})]
        receipt = ledger.commit(CommitBatch(rows, [], [0, 1], 2, 2, Counts(out=2), 2, True))
    assert set(msgspec.json.decode(receipt.rejected[0].input)) == {"n", "text", "extra"}


def test_a_file_system_without_links_is_refused_at_the_start(tmp_path: Path) -> None:
    class PlainFiles(Files):
        def link(self, source: Path, target: Path) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(target))

    with pytest.raises(UsageError, match="hard links"):
        open_ledger(tmp_path / "out", files=PlainFiles())
