"""A made-up run of three phases for the tests of the ledger, and what an undisturbed one leaves."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
from ledger_support import Builder, dead_ordinals, open_ledger, read_rows

from penstock.core.counts import Counts
from penstock.data.base import Origin, Row
from penstock.ledger import Ledger
from penstock.ledger.base import CommitBatch, DeadRow, Finished
from penstock.ledger.carried import CarriedRows

PHASES = 3
Key = tuple[int, tuple[int, ...]]
Rows = list[tuple[Row, Origin]]


def becomes(phase: int, n: int, key: Key) -> list[tuple[int, ...]] | None:
    """What becomes of a row in a phase: paths of its outputs below it (one of them empty: itself), [] where it is
    filtered, None where it dies."""
    mark = n + phase * 7 + len(key[1])
    if mark % 17 == 5:
        return None
    if mark % 11 == 3:
        return []
    if phase < 2 and mark % 13 == 4:
        return [(child,) for child in range(2 + n % 5)]
    return [()]


def expected(total: int) -> tuple[list[Row], list[int]]:
    rows: list[tuple[int, Key]] = [(n, (n, ())) for n in range(total)]
    lost = []
    for phase in range(PHASES):
        following = []
        for n, key in rows:
            paths = becomes(phase, n, key)
            if paths is None:
                lost.append(n)
            following += [(n, (key[0], (*key[1], *path))) for path in paths or ()]
        rows = following
    return [_row(n, key) for n, key in rows], sorted(lost)


def deaths(n: int) -> list[int]:
    """The phases in which rows of a source row die."""
    found, keys = [], [(n, ())]
    for phase in range(PHASES):
        ends = [(key, becomes(phase, n, key)) for key in keys]
        found += [phase for _, paths in ends if paths is None]
        keys = [(n, (*key[1], *path)) for key, paths in ends for path in paths or ()]
    return found


def read_all(source: CarriedRows, start: int, max_rows: int) -> list[Rows]:
    """Of each position from `start` on, its rows."""
    found: list[Rows] = []
    while (chunk := source.read(start, None, max_rows)) is not None:
        assert chunk.origins is not None
        alone = zip(chunk.positions, chunk.rows, chunk.origins, strict=True)
        here: dict[int, Rows] = {position: [(row, origin)] for position, row, origin in alone}
        for family in chunk.families:
            here[family.position] = list(zip(family.rows, family.origins, strict=True))
        assert sorted(here) == list(range(start, chunk.next_position))
        assert len(here) == 1 or sum(map(len, here.values())) <= max_rows
        found += [here[position] for position in sorted(here)]
        start = chunk.next_position
    return found


def _row(n: int, key: Key) -> Row:
    return {"n": n, "text": f"{key[0]}:{'.'.join(map(str, key[1]))}"}


def open_phased(out: Path) -> Ledger:
    return open_ledger(out, cut=(1, 2, 3), table=None)


class PhasedCoordinator:
    """Runs the phases that are left, each in batches of shuffled positions."""

    def __init__(self, ledger: Ledger, total: int) -> None:
        self.ledger, self.total = ledger, total

    def run(self, *, batch_rows: int = 20, seed: int = 0) -> None:
        while not self.ledger.state.finished:
            self.ledger.begin_phase(Builder)
            self._phase(batch_rows, random.Random(seed))
            self.ledger.begin_phase(Builder)

    def _rows(self) -> list[Rows]:
        """Of each position, what the phase before has left."""
        if self.ledger.state.phase == 0:
            return [[({"n": n, "text": ""}, Origin(n, (), "x.jsonl", n))] for n in range(self.total)]
        source = self.ledger.inputs()
        found = read_all(source, 0, 7)
        assert len(found) == source.total_rows
        for rows in found:
            (position,) = {origin.position for _, origin in rows}
            died = any(phase < self.ledger.state.phase for phase in deaths(position))
            assert [origin.source_dead for _, origin in rows] == [died] * len(rows)
        return found

    def _phase(self, batch_rows: int, order: random.Random) -> None:
        state, rows = self.ledger.state, self._rows()
        watermark, above, counts = state.watermark, set(state.ended_above), state.counts
        left = [position for position in range(watermark, len(rows)) if position not in above]
        while True:
            chosen = sorted(order.sample(left[: 2 * batch_rows], min(batch_rows, len(left))))
            left = [position for position in left if position not in set(chosen)]
            above |= set(chosen)
            while watermark in above:
                above.discard(watermark)
                watermark += 1
            batch = self._batch(state.phase, rows, chosen, watermark, counts, final=not chosen)
            self.ledger.commit(batch)
            counts = batch.counts
            if not chosen:
                return

    def _batch(
        self,
        phase: int,
        rows: list[Rows],
        chosen: list[int],
        watermark: int,
        counts: Counts,
        *,
        final: bool,
    ) -> CommitBatch:
        finished: list[Finished] = []
        dead: list[DeadRow] = []
        for position in chosen:
            for row, origin in rows[position]:
                key = (origin.position, origin.path)
                paths = becomes(phase, row["n"], key)
                if paths is None:
                    place = (position, origin.source, origin.row, list(origin.path))
                    dead.append(DeadRow(*place, f"step-{phase}", "refused", "no", 1, "{}", origin.position))
                for path in paths or ():
                    whole = (*origin.path, *path)
                    below = msgspec.structs.replace(origin, path=whole)
                    here = whole if len(rows[position]) > 1 else path
                    finished.append(Finished(position, here, _row(row["n"], (key[0], whole)), below))
        last = phase == PHASES - 1
        counted = Counts(
            rows_in=self.total if phase == 0 else counts.rows_in,
            out=counts.out + (len(finished) if last else 0),
            dead=counts.dead + len(dead),
        )
        total = self.total if final and phase == 0 else None
        return CommitBatch(finished, dead, chosen, watermark, watermark, counted, total, final)


def assert_phased_complete(out: Path, total: int) -> None:
    rows, lost = expected(total)
    assert read_rows(out) == rows
    assert dead_ordinals(out) == lost
    assert list((out / ".penstock" / "segments").iterdir()) == []
    assert list((out / ".penstock" / "staging").iterdir()) == []
