"""Bugs planted in what `--limit` admits and in the evidence of what was read, one at a time (see planting.py)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import pytest
from planting import caught, planted

from penstock.core import events as ev
from penstock.core.flow import admission
from penstock.core.flow.admission import Admission
from penstock.core.flow.evidence import Evidence
from penstock.core.flow.flow import Flow
from penstock.core.shape import Progress, SourceMark
from penstock.sim import world

PLANTED, plant = planted()
# Where what a bug needs is rare: one seed in about seven hundred.


@plant
def limit_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "admission_ends", lambda limit, progress: None)


@plant
def limit_below_what_has_ended_leaves_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    def gap(limit: int | None, progress: Progress) -> int | None:
        return None if limit is None else max(limit, progress.watermark)

    monkeypatch.setattr(admission, "admission_ends", gap)


@plant
def a_known_number_of_rows_taken_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source's end was seen once, so that a life with a limit has ended the run for good."""
    monkeypatch.setattr(world, "all_admitted", lambda watermark, total_rows, limit: total_rows is not None)


@plant
def the_end_of_a_limit_taken_for_the_end_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    at_limit = Admission.at_limit

    def complete(self: Admission) -> bool:
        found = at_limit(self)
        self.complete = self.total_rows is not None
        return found

    monkeypatch.setattr(Admission, "at_limit", complete)


@plant
def mark_of_the_read_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit has rows that its mark does not tell of."""
    read = Flow._on_rows_read

    def lags(self: Flow, event: ev.RowsRead) -> None:
        before = self.admission.mark
        read(self, event)
        self.admission.mark = before or self.admission.mark

    monkeypatch.setattr(Flow, "_on_rows_read", lags)


@plant
def a_resume_compares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evidence, "proves", lambda self, mark: True)


@plant
def only_the_length_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def proves(self: Evidence, mark: SourceMark) -> bool:
        return (self.file, self.units) == (mark.file, mark.units)

    monkeypatch.setattr(Evidence, "proves", proves)


@plant
def a_change_within_a_life_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evidence, "is_suspect", lambda self, file, status: False)


@plant
def each_file_hashed_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The evidence of a file is forgotten with its end."""
    end_file = Evidence.end_file

    def forget(self: Evidence, size_bytes: int) -> None:
        end_file(self, size_bytes)
        self._hash = hashlib.sha256()

    monkeypatch.setattr(Evidence, "end_file", forget)


@plant
def what_is_read_once_more_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was compared when the life began, and has changed since."""
    feed = Evidence.feed

    def unseen(self: Evidence, file: int, begin: int, end: int, parts: Iterable[bytes | memoryview]) -> bool:
        feed(self, file, begin, end, parts)
        return False

    monkeypatch.setattr(Evidence, "feed", unseen)


@plant
def units_fed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read once more after a resume is hashed once more: an unchanged source is refused."""
    feed = Evidence.feed

    def again(self: Evidence, file: int, begin: int, end: int, parts: Iterable[bytes | memoryview]) -> bool:
        if file == self.file and end <= self.units:
            self.units = begin
        return feed(self, file, begin, end, parts)

    monkeypatch.setattr(Evidence, "feed", again)


@plant
def the_beginning_of_a_file_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a hash of the first bytes does."""
    feed = Evidence.feed

    def first(self: Evidence, file: int, begin: int, end: int, parts: Iterable[bytes | memoryview]) -> bool:
        return feed(self, file, begin, end, [part for unit, part in enumerate(parts, begin) if unit < 4])

    monkeypatch.setattr(Evidence, "feed", first)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    caught(name)
