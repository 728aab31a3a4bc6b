"""Commits: what stands in data/ and dead/ after each, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ledger_support import (
    COLUMNS,
    Builder,
    Coordinator,
    assert_complete,
    dead,
    dead_ordinals,
    expected,
    finished,
    open_ledger,
    read_rows,
)

from penstock.core.counts import Counts
from penstock.errors import InvariantError
from penstock.ledger import publish, read_run, stage
from penstock.ledger.base import CommitBatch, Finished
from penstock.ledger.dead_rows import standing_parts
from penstock.ledger.files import Files
from penstock.ledger.joining import MAX_TAIL
from penstock.ledger.layout import Layout
from penstock.ledger.manifest import Manifest


def positions_in(out: Path) -> list[int]:
    return [row["n"] for row in read_rows(out)]


def test_rows_below_the_bound_are_published_and_the_rest_waits(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "out") as ledger:
        coordinator = Coordinator(ledger, 12)
        coordinator.commit([2, 0, 6, 1])
        assert positions_in(tmp_path / "out") == [0, 1, 2]
        assert ledger.entry.published_to == 3
        assert [segment.rows for segment in ledger.entry.segments] == [1]
        coordinator.commit([4, 8, 3], publish=False)
        assert positions_in(tmp_path / "out") == [0, 1, 2]
        coordinator.commit([5, 7])
        rows, _ = expected(9)
        assert read_rows(tmp_path / "out") == rows
        assert ledger.entry.segments == ()


def test_a_segment_is_published_in_parts(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "out") as ledger:
        coordinator = Coordinator(ledger, 40)
        coordinator.commit([position for position in range(40) if position not in (0, 10, 20)])
        for position in (0, 10, 20):
            coordinator.commit([position])
        coordinator.commit([], final=True)
    assert_complete(tmp_path / "out", 40)


def test_order_completion_publishes_whatever_is_finished(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "out", order="completion") as ledger:
        coordinator = Coordinator(ledger, 30)
        coordinator.commit([20, 10, 9])
        assert positions_in(tmp_path / "out") == [9, 10, 20]
        coordinator.commit([0, 1], publish=False)
        assert positions_in(tmp_path / "out") == [9, 10, 20]
        coordinator.commit(coordinator.remaining())
        coordinator.commit([], final=True)
    rows, _ = expected(30)
    by_text = sorted(read_rows(tmp_path / "out"), key=lambda row: row["text"])
    assert by_text == sorted(rows, key=lambda row: row["text"])


def test_parts_are_split_by_rows_and_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "PART_ROWS", 7)
    with open_ledger(tmp_path / "rows") as ledger:
        coordinator = Coordinator(ledger, 50)
        coordinator.commit(range(50))
        coordinator.commit([], final=True)
        assert {part.stat().st_size > 0 for part in (tmp_path / "rows" / "data").iterdir()} == {True}
    assert_complete(tmp_path / "rows", 50)
    sizes = [pq.read_metadata(path).num_rows for path in sorted((tmp_path / "rows" / "data").iterdir())]
    assert set(sizes[:-1]) == {7} and 0 < sizes[-1] <= 7
    monkeypatch.setattr(stage, "PART_BYTES", 1)
    with open_ledger(tmp_path / "bytes") as ledger:
        Coordinator(ledger, 5).commit(range(5), final=True)
    assert len(list((tmp_path / "bytes" / "data").iterdir())) == len(expected(5)[0])


def test_many_segments_are_merged_into_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "MAX_SEGMENTS", 4)
    most = 0
    with open_ledger(tmp_path / "out") as ledger:
        coordinator = Coordinator(ledger, 100)
        for first in range(99, 0, -3):
            coordinator.commit(range(first - 2, first + 1))
            most = max(most, len(ledger.entry.segments))
            present = {path.name for path in (tmp_path / "out" / ".penstock" / "segments").iterdir()}
            assert present == {segment.name for segment in ledger.entry.segments}
        coordinator.commit([0], final=True)
    assert most == 4
    assert_complete(tmp_path / "out", 100)


def test_a_run_without_output_can_be_read(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "out") as ledger:
        Coordinator(ledger, 0).commit([], final=True)
    (part,) = (tmp_path / "out" / "data").iterdir()
    assert pq.read_schema(part).equals(COLUMNS)
    assert pq.read_metadata(part).num_rows == 0


def test_a_finished_run_may_go_on_and_loses_its_empty_part(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "out") as ledger:
        Coordinator(ledger, 0).commit([], final=True)
    with open_ledger(tmp_path / "out") as ledger:
        assert ledger.state.finished
        coordinator = Coordinator(ledger, 10)
        coordinator.commit(range(10))
        assert not read_run(tmp_path / "out").finished
        coordinator.commit([], final=True)
    assert_complete(tmp_path / "out", 10)
    assert [path.name for path in (tmp_path / "out" / "data").iterdir()] == ["part-00001.parquet"]


def test_a_row_that_can_not_be_written_dies_in_the_same_commit(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "out", locate=lambda position: ("in.jsonl", position + 100)) as ledger:
        rows = [finished(0), Finished(1, (), {"n": "one", "text": b"\xff"}), finished(2)]
        counts = Counts(rows_in=4, out=3, dead=1, dead_sources=1, ended_sources=4)
        receipt = ledger.commit(CommitBatch(rows, [dead(3)], [0, 1, 2, 3], 4, 4, counts, 4, True))
    (rejected,) = receipt.rejected
    assert (rejected.code, rejected.step, rejected.source, rejected.row) == ("encode_error", "sink", "in.jsonl", 101)
    assert "column 'n': no integer" in rejected.message
    assert positions_in(tmp_path / "out") == [0, 2]
    assert [row["code"] for row in read_rows(tmp_path / "out", "dead")] == ["encode_error", "refused"]
    stored = read_run(tmp_path / "out").counts
    assert stored == receipt.counts
    assert (stored.out, stored.dead, stored.dead_sources) == (2, 2, 2)


def test_the_schema_is_kept_with_the_run(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "out") as ledger:
        Coordinator(ledger, 10).commit(range(5))
    given: list[object] = []
    with open_ledger(tmp_path / "out", table=lambda fixed: given.append(fixed) or Builder(fixed)):
        assert given == [COLUMNS]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ended": [0, 1]}, "source row 2"),
        ({"ended": [0, 0, 1, 2]}, "ended twice"),
        ({"watermark": 4}, "past 1 source rows"),
        ({"publish_to": 4}, "publish up to 4"),
        ({"watermark": 2, "publish_to": 2, "final": True}, "leaves source rows behind"),
        ({"finished": [finished(1), finished(1)]}, "twice in one batch"),
    ],
)
def test_a_wrong_batch_is_refused_and_changes_nothing(tmp_path: Path, change: dict, said: str) -> None:
    fields = {
        "finished": [finished(2)],
        "dead": [],
        "ended": [0, 1, 2],
        "watermark": 3,
        "publish_to": 3,
        "counts": Counts(),
    }
    with open_ledger(tmp_path / "out") as ledger:
        with pytest.raises(InvariantError, match=said):
            ledger.commit(CommitBatch(**{**fields, **change}))
        assert list((tmp_path / "out" / "data").iterdir()) == []
        Coordinator(ledger, 20).run()
    assert_complete(tmp_path / "out", 20)


def test_a_row_that_ended_before_may_not_end_again(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "out") as ledger:
        coordinator = Coordinator(ledger, 10)
        coordinator.commit([0, 5])
        for position in (0, 5):
            again = CommitBatch([], [], [position], 1, None, Counts())
            with pytest.raises(InvariantError, match=f"source row {position} ended twice"):
                ledger.commit(again)


def test_the_manifest_replays(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "out") as ledger:
        Coordinator(ledger, 200).run()
    entries = Manifest(Layout(tmp_path / "out"), Files()).replay()
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert sum(part.rows for entry in entries for part in entry.parts) == entries[-1].part_rows_total
    assert [part.name for entry in entries for part in entry.parts] == [
        f"part-{number:05d}.parquet" for number in range(entries[-1].parts_total)
    ]
    watermarks = [entry.watermark for entry in entries]
    assert watermarks == sorted(watermarks) and entries[-1].finished


def test_many_small_parts_of_dead_rows_are_joined(tmp_path: Path) -> None:
    """One dead row a commit, for as many commits as an hour has: few parts at any time, each row once."""
    out, total = tmp_path / "out", 400
    most = 0
    with open_ledger(out) as ledger:
        coordinator = Coordinator(ledger, total)
        for position in range(total):
            gone = dead(position)
            batch = coordinator.batch([position])
            batch.finished, batch.dead = [], [gone]
            ledger.commit(batch)
            coordinator.note(batch)
            most = max(most, len(list((out / "dead").iterdir())))
    assert most <= MAX_TAIL + 1
    assert dead_ordinals(out) == list(range(total))
    with open_ledger(out) as ledger:
        data, parts = standing_parts(Manifest(Layout(out), Files()))
        assert sorted(parts) == sorted(path.name for path in (out / "dead").iterdir())
        assert sum(part.rows for part in parts.values()) == total and not data


@pytest.mark.parametrize("held", [False, True], ids=["flowing", "behind a slow row"])
def test_many_commits_leave_few_files_beside_their_entries(tmp_path: Path, held: bool) -> None:
    """As of a `commit_every_s` far below a second: one entry each, which the chain needs, and all else is merged."""
    out, most = tmp_path / "out", 0
    with open_ledger(out) as ledger:
        for number in range(250):
            position = number + held  # row 0 is the slow one
            watermark = 0 if held else number + 1
            counts = Counts(rows_in=number + 2, out=number + 1, ended_sources=number + 1)
            batch = CommitBatch([finished(position)], [], [position], watermark, watermark, counts, None, False)
            ledger.commit(batch)
            files = [path for path in out.rglob("*") if path.is_file() and path.parent.name != "manifest"]
            most = max(most, len(files))
    assert len(list((out / ".penstock" / "manifest").iterdir())) == 251
    assert most < 100
