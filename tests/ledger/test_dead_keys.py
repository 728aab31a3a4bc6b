"""Dead rows are known by position in the source and path, in every part of dead/, whatever becomes of the parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_support import Coordinator, dead_ordinals, open_ledger, outcome
from phase_support import PhasedCoordinator, deaths, open_phased

from penstock.errors import Fenced
from penstock.ledger.base import CommitBatch
from penstock.ledger.dead_rows import standing_parts
from penstock.ledger.files import Files
from penstock.ledger.layout import Layout
from penstock.ledger.manifest import Manifest
from penstock.ledger.part_keys import DeadKey, encode_dead_keys, read_dead_keys
from penstock.ledger.retry_parts import Retried

TOTAL = 120
PATHS = st.lists(st.integers(0, 3), max_size=2).map(tuple)


def dead_keys(out: Path) -> list[DeadKey]:
    _, parts = standing_parts(Manifest(Layout(out), Files()))
    return [key for part in parts.values() for key in read_dead_keys(Layout(out), Files(), part)]


@pytest.mark.parametrize("most", [4, 1000], ids=["joined", "apart"])
def test_they_stand_in_the_order_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr("penstock.ledger.joining.MAX_TAIL", most)
    with open_ledger(tmp_path) as ledger:
        coordinator = Coordinator(ledger, TOTAL)
        for position in range(TOTAL):
            coordinator.commit([position], final=position == TOTAL - 1)
    keys = dead_keys(tmp_path)
    assert [position for (position, _), _ in keys] == dead_ordinals(tmp_path)
    assert keys == [DeadKey((row.position, ()), 0) for position in range(TOTAL) for row in outcome(position)[1]]
    assert {path.name for path in (tmp_path / ".penstock" / "keys").iterdir()} == {
        part.keys for parts in standing_parts(Manifest(Layout(tmp_path), Files())) for part in parts.values()
    }


def test_after_phases_they_are_those_of_the_source(tmp_path: Path) -> None:
    with open_phased(tmp_path) as ledger:
        PhasedCoordinator(ledger, TOTAL).run()
    found = sorted((position, phase) for (position, _), phase in dead_keys(tmp_path))
    assert found == sorted((n, phase) for n in range(TOTAL) for phase in deaths(n))


@given(st.lists(st.builds(DeadKey, st.tuples(st.integers(0, 20), PATHS), st.integers(-1, 2))))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, keys: list[DeadKey]) -> None:
    from penstock.ledger.entry import PartFact

    layout = Layout(tmp_path_factory.mktemp("keys"))
    layout.keys.mkdir(parents=True)
    (layout.keys / "k").write_bytes(encode_dead_keys(keys))
    assert read_dead_keys(layout, Files(), PartFact("part", "", len(keys), 0, "", "k")) == keys


def test_a_finished_run_that_was_opened_before_a_retry_took_its_place(tmp_path: Path) -> None:
    """What the stale one knows of may have gone from dead/; it is told that it is late, and nothing is damaged."""
    with open_ledger(tmp_path) as ledger:
        Coordinator(ledger, TOTAL).run()
    late = open_ledger(tmp_path)
    counts = late.entry.counts
    with open_ledger(tmp_path) as ledger:
        _, parts = standing_parts(Manifest(Layout(tmp_path), Files()))
        known = {name: read_dead_keys(Layout(tmp_path), Files(), part) for name, part in parts.items()}
        every = {key for keys in known.values() for key, _ in keys}
        ledger.commit_retry(lambda: Retried(every, known, iter(()), [], counts))
    assert dead_ordinals(tmp_path) == []
    with pytest.raises(Fenced, match="in the meantime"):
        late.commit(CommitBatch([], [], [], late.state.watermark, None, counts))
    late.close()
    with open_ledger(tmp_path) as ledger:
        assert ledger.state.finished and dead_keys(tmp_path) == []
