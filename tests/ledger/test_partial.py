"""Results of paid steps of rows that have not ended: durable, told to a resume, gone with their rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from ledger_support import Coordinator, known, open_ledger, paid

from penstock.errors import LedgerDamaged
from penstock.ledger import partial


def test_a_resume_gets_what_unfinished_rows_have_paid_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    results = [paid(7, 1), paid(3), paid(7), paid(5, 2, (1, 0)), paid(5, 2, (0,))]
    with open_ledger(out) as ledger:
        coordinator = Coordinator(ledger, 20)
        coordinator.commit([0, 1], partial=results[:2])
        coordinator.commit([], partial=results[2:])
    with open_ledger(out) as ledger:
        assert ledger.paid() == known(results)
        assert ledger.entry.watermark == 2


def test_what_is_known_of_a_row_goes_with_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_ledger(out) as ledger:
        coordinator = Coordinator(ledger, 20)
        coordinator.commit([], partial=[paid(2), paid(4)])
        coordinator.commit([4])
        assert ledger.paid() == known([paid(2)])
        assert len(ledger.entry.partial) == 1
        coordinator.commit([0, 1, 2, 3])
        assert ledger.paid() == {} and ledger.entry.partial == ()
        assert not list((out / ".penstock" / "segments").glob("*partial*"))


def test_segments_stay_few_while_a_slow_row_holds_the_watermark(tmp_path: Path) -> None:
    """Row 0 stays open; thousands of others come by, a few of them open at any time."""
    out, total, width = tmp_path / "out", 2000, 8
    with open_ledger(out) as ledger:
        coordinator = Coordinator(ledger, total)
        coordinator.commit([], partial=[paid(0)])
        rows: list[int] = []
        for number, position in enumerate(range(1, total - width, width)):
            begun = range(position + width, position + 2 * width)
            coordinator.commit(range(position, position + width), partial=[paid(row) for row in begun])
            live = ledger.entry.partial
            rows.append(sum(segment.rows for segment in live))
            assert len(live) <= partial.MAX_PARTIAL
            assert ledger.paid() == known([paid(0), *(paid(row) for row in begun)]), number
        assert max(rows) < 4 * partial.MAX_PARTIAL * width, "what has ended is left out when segments are merged"
        present = {path.name for path in (out / ".penstock" / "segments").glob("*partial*")}
        assert present == {segment.name for segment in ledger.entry.partial}


def test_a_damaged_segment_is_not_believed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_ledger(out) as ledger:
        Coordinator(ledger, 20).commit([], partial=[paid(2)])
    (path,) = (out / ".penstock" / "segments").glob("*partial*")
    path.write_bytes(path.read_bytes()[:-20] + bytes(20))
    with open_ledger(out) as ledger, pytest.raises(LedgerDamaged, match="does not match its hash"):
        ledger.paid()
