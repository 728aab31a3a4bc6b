"""Commits: when a batch is cut, what is in it, and how far it may be published."""

from __future__ import annotations

from penstock.core import events as ev
from penstock.core.flow.commits import Commits
from penstock.core.shape import FlowLimits, Progress


def made(*, ordered: bool = True, progress: Progress | None = None, **limits: int | float) -> Commits:
    chosen: dict[str, int | float] = {"reach": 100, "commit_every_s": 10.0, "commit_rows": 4, "part_rows": 6}
    return Commits(FlowLimits(**{**chosen, **limits}), progress or Progress(), 0.0, ordered=ordered)  # type: ignore[arg-type]


def end(commits: Commits, *positions: int, size: int = 10) -> None:
    for position in positions:
        commits.finished.append(position)
        commits.end(position, size)


def cut(commits: Commits, now: float, *, ended: bool = False, final: bool = False) -> ev.Commit | None:
    batch = commits.next_batch(now, ended=ended, final=final)
    if batch is not None:
        batch.id = 7
        commits.sent(7)
    return batch


def test_nothing_to_commit() -> None:
    assert cut(made(), 100.0) is None


def test_the_clock_of_a_batch_starts_with_its_first_row() -> None:
    commits = made()
    assert cut(commits, 50.0) is None
    end(commits, 0)
    assert cut(commits, 59.0) is None
    batch = cut(commits, 60.0)
    assert batch is not None
    assert (batch.finished, batch.ended, batch.watermark, batch.publish_to) == ([0], [0], 1, None)


def test_many_rows_or_bytes_do_not_wait() -> None:
    commits = made()
    end(commits, 0, 1, 2, 3)
    assert cut(commits, 0.0) is not None
    heavy = made(commit_bytes=1000)
    end(heavy, 0, size=1000)
    assert cut(heavy, 0.0) is not None


def test_one_is_out_at_a_time() -> None:
    commits = made()
    end(commits, 0, 1, 2, 3)
    assert cut(commits, 0.0) is not None
    end(commits, 4, 5, 6, 7)
    assert cut(commits, 100.0) is None
    assert not commits.idle()
    commits.done(99)
    assert cut(commits, 100.0) is None, "another commit was meant"
    commits.done(7)
    assert cut(commits, 100.0) is not None


def test_ended_positions_are_sorted_and_the_watermark_stops_at_a_hole() -> None:
    commits = made()
    end(commits, 5, 0, 3, 1)
    batch = cut(commits, 0.0)
    assert batch is not None
    assert (batch.ended, batch.watermark) == ([0, 1, 3, 5], 2)


def test_admission_waits_for_a_slow_disk() -> None:
    commits = made()
    end(commits, 0, 1, 2, 3)
    cut(commits, 0.0)
    assert not commits.full(0.0)
    end(commits, 4, 5, 6, 7)
    assert commits.full(0.0)
    commits.done(7)
    assert not commits.full(0.0)


def test_admission_waits_for_a_commit_that_takes_too_long() -> None:
    commits = made(commit_patience_s=120.0)
    end(commits, 0, 1, 2, 3)
    cut(commits, 50.0)
    assert not commits.full(169.0)
    assert commits.full(170.0)
    commits.done(7)
    assert not commits.full(170.0), "nothing is out"


def test_in_order_a_part_waits_for_its_head() -> None:
    commits = made(commit_rows=3)
    for batch_of in ((1, 2, 3), (4, 5, 6), (7, 8, 9)):
        end(commits, *batch_of)
        batch = cut(commits, 0.0)
        assert batch is not None and batch.publish_to is None
        commits.done(7)
    end(commits, 0, 10, 11)
    batch = cut(commits, 0.0)
    assert batch is not None
    assert (batch.watermark, batch.publish_to) == (12, 12)


def test_in_order_of_completion_the_head_holds_nothing_up() -> None:
    commits = made(ordered=False, commit_rows=3)
    end(commits, 1, 2, 3)
    first = cut(commits, 0.0)
    assert first is not None and first.publish_to is None
    commits.done(7)
    end(commits, 4, 5, 6)
    second = cut(commits, 0.0)
    assert second is not None and second.publish_to is not None


def test_the_end_publishes_what_is_left_and_only_once() -> None:
    commits = made()
    end(commits, 0)
    batch = cut(commits, 0.0, ended=True, final=True)
    assert batch is not None
    assert (batch.final, batch.publish_to) == (True, 1)
    commits.done(7)
    assert cut(commits, 1.0, ended=True, final=True) is None


def test_a_run_with_nothing_in_it_commits_its_end() -> None:
    batch = cut(made(), 0.0, ended=True, final=True)
    assert batch is not None
    assert (batch.final, batch.ended, batch.watermark) == (True, [], 0)


def test_a_stop_publishes_without_being_final() -> None:
    commits = made()
    end(commits, 0, 2)
    batch = cut(commits, 0.0, ended=True)
    assert batch is not None
    assert (batch.final, batch.publish_to) == (False, 1)


def test_taken_up_positions_are_not_published_again() -> None:
    commits = made(progress=Progress(watermark=5, ended_above=(6,)), part_rows=2, commit_rows=1)
    end(commits, 5)
    batch = cut(commits, 0.0)
    assert batch is not None
    assert (batch.watermark, batch.publish_to) == (7, 7)
