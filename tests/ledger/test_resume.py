"""Whatever is committed in whatever order, and however often the run is taken up again: the output is the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_support import Coordinator, assert_complete, expected, open_ledger, read_rows

from example_counts import examples
from penstock.ledger import publish, read_run, stage

TOTAL = 60
steps = st.lists(
    st.tuples(
        st.lists(st.integers(0, TOTAL - 1), max_size=15, unique=True), st.booleans(), st.sampled_from(["go", "reopen"])
    ),
    max_size=12,
)


def check_published(out: Path, order: str) -> None:
    """In the middle of a run: data/ holds whole positions, without a gap where the order is that of the input."""
    texts = [row["text"] for row in read_rows(out)]
    assert len(texts) == len(set(texts))
    if order == "input":
        rows, _ = expected(TOTAL)
        assert texts == [row["text"] for row in rows[: len(texts)]]


@settings(max_examples=examples(60), deadline=None)
@given(steps=steps, order=st.sampled_from(["input", "completion"]), part_rows=st.integers(1, 30))
def test_any_history_gives_the_output_of_an_undisturbed_run(
    steps: list[tuple[list[int], bool, str]], order: str, part_rows: int
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(publish, "MAX_SEGMENTS", 3),
        mock.patch.object(stage, "PART_ROWS", part_rows),
        mock.patch("os.fsync"),  # nothing loses power here, and it is most of the time
    ):
        out = Path(folder) / "out"
        coordinator = Coordinator(open_ledger(out, order=order), TOTAL)
        for chosen, publish_now, then in steps:
            left = set(coordinator.remaining())
            coordinator.commit([position for position in chosen if position in left], publish=publish_now)
            check_published(out, order)
            if then == "reopen":
                before = coordinator
                before.ledger.close()
                coordinator = Coordinator(open_ledger(out, order=order), TOTAL)
                assert coordinator.remaining() == before.remaining()
                assert coordinator.counts == before.counts
        coordinator.commit(coordinator.remaining(), publish=False)
        coordinator.commit([], final=True)
        coordinator.ledger.close()
        if order == "input":
            assert_complete(out, TOTAL)
        rows, _ = expected(TOTAL)
        assert sorted(row["text"] for row in read_rows(out)) == sorted(row["text"] for row in rows)


def test_a_finished_run_is_opened_without_a_trace(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "out") as ledger:
        Coordinator(ledger, 30).run()
    before = read_run(tmp_path / "out")
    with open_ledger(tmp_path / "out") as ledger:
        assert ledger.state.finished and not ledger.state.fresh
        assert ledger.state.counts.ended_sources == 30
    assert read_run(tmp_path / "out") == before
    assert before.finished and before.owner is None and before.total_rows == 30


def test_each_take_up_is_a_new_epoch(tmp_path: Path) -> None:
    seen = []
    for _ in range(3):
        with open_ledger(tmp_path / "out") as ledger:
            seen.append((ledger.state.epoch, ledger.state.fresh))
    assert seen == [(1, True), (2, False), (3, False)]


def test_a_wrong_hint_is_harmless(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "out") as ledger:
        Coordinator(ledger, 200).run(batch_rows=5)
        newest = ledger.entry
    for hint in (b"1", b"999999", b"-3", b"what?", b"", str(newest.seq - 1).encode()):
        (tmp_path / "out" / ".penstock" / "newest").write_bytes(hint)
        assert read_run(tmp_path / "out").seq == newest.seq
    (tmp_path / "out" / ".penstock" / "newest").unlink()
    assert read_run(tmp_path / "out").seq == newest.seq
