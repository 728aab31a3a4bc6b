"""A made-up run for the tests of the ledger: what each source row becomes, and a coordinator small enough to read."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.core.counts import Counts
from penstock.ledger import Ledger
from penstock.ledger.base import CommitBatch, DeadRow, Finished, PaidResult, PaidResults, Row

COLUMNS = pa.schema([("n", pa.int64()), ("text", pa.string())])


class Builder:
    """Tables of COLUMNS; a row whose `n` is no integer is rejected."""

    def __init__(self, fixed: pa.Schema | None = None) -> None:
        self.fixed = fixed

    def build(self, rows: Sequence[Row]) -> tuple[pa.Table, list[tuple[int, str, str]]]:
        bad = [index for index, row in enumerate(rows) if not isinstance(row["n"], int)]
        good = [row for row in rows if isinstance(row["n"], int)]
        self.fixed = COLUMNS
        return pa.Table.from_pylist(good, schema=COLUMNS), [(index, "n", "no integer") for index in bad]

    def fixed_schema(self) -> pa.Schema | None:
        return self.fixed


def diff(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)]


def open_ledger(out: Path, **changes: Any) -> Ledger:
    settings: dict[str, Any] = {
        "identity": {"prompt": "a"},
        "input_identity": {"file": "x.jsonl", "bytes": 1},
        "table": Builder,
        "sink_format": "parquet",
        "order": "input",
        "diff": diff,
    }
    return Ledger.open(out, **{**settings, **changes})


def outcome(position: int) -> tuple[list[Finished], list[DeadRow]]:
    """What becomes of a source row: one row, three children, a dead row, or (filtered) nothing."""
    if position % 17 == 5:
        return [], [dead(position)]
    if position % 11 == 3:
        return [], []
    if position % 13 == 4:
        return [finished(position, (child,)) for child in range(3)], []
    return [finished(position)], []


def finished(position: int, path: tuple[int, ...] = ()) -> Finished:
    return Finished(position, path, {"n": position, "text": f"{position}:{'.'.join(map(str, path))}"})


def dead(position: int, code: str = "refused") -> DeadRow:
    return DeadRow(position, "x.jsonl", position, [], "generate", code, "no", 1, f'{{"n": {position}}}')


def expected(total: int) -> tuple[list[Row], list[int]]:
    """The output and the dead ordinals of an undisturbed run over `total` source rows."""
    rows: list[Row] = []
    lost: list[int] = []
    for position in range(total):
        out, gone = outcome(position)
        rows += [item.row for item in out]
        lost += [item.row for item in gone]
    return rows, lost


def paid(position: int, step: int = 0, path: tuple[int, ...] = ()) -> PaidResult:
    return PaidResult(position, path, step, f"{position} {path} {step}".encode())


def known(results: Iterable[PaidResult]) -> PaidResults:
    found: PaidResults = {}
    for result in results:
        found.setdefault(result.position, {})[result.path, result.step] = result.answer
    return found


class Coordinator:
    """Ends source rows in some order and commits them, going on from what the ledger says is done. With each commit the
    rows that come next have got one step further."""

    def __init__(self, ledger: Ledger, total: int) -> None:
        self.ledger = ledger
        self.total = total
        state = ledger.state
        self.watermark = state.watermark
        self.above = set(state.ended_above)
        self.counts = state.counts
        self.steps = {position: len(results) for position, results in ledger.paid().items()}

    def remaining(self) -> list[int]:
        return [position for position in range(self.watermark, self.total) if position not in self.above]

    def step_of(self, position: int) -> PaidResult:
        """One more step of a row that has not ended."""
        self.steps[position] = self.steps.get(position, 0) + 1
        return paid(position, self.steps[position] - 1)

    def batch(self, positions: Iterable[int], *, publish: bool = True, final: bool = False) -> CommitBatch:
        """The batch that ends `positions`; does not count them as ended yet."""
        ended = sorted(positions)
        rows = [item for position in ended for item in outcome(position)[0]]
        lost = [item for position in ended for item in outcome(position)[1]]
        watermark, above = self.watermark, self.above | set(ended)
        while watermark in above:
            watermark += 1
        counts = Counts(
            rows_in=self.total,
            out=self.counts.out + len(rows),
            dead=self.counts.dead + len(lost),
            dead_sources=self.counts.dead_sources + len(lost),
            ended_sources=self.counts.ended_sources + len(ended),
        )
        publish_to = watermark if publish else None
        return CommitBatch(rows, lost, ended, watermark, publish_to, counts, self.total if final else None, final)

    def commit(
        self,
        positions: Iterable[int],
        *,
        publish: bool = True,
        final: bool = False,
        partial: Sequence[PaidResult] = (),
    ) -> None:
        batch = self.batch(positions, publish=publish, final=final)
        batch.partial = list(partial)
        self.ledger.commit(batch)
        self.note(batch)

    def note(self, batch: CommitBatch) -> None:
        self.above = {position for position in self.above | set(batch.ended) if position >= batch.watermark}
        self.watermark = batch.watermark
        self.counts = batch.counts

    def run(self, *, batch_rows: int = 20, window: int = 40, seed: int = 0) -> None:
        """All that remains, shuffled within a window, publishing at every other commit."""
        if self.ledger.state.finished:
            return
        left = self.remaining()
        order = random.Random(seed)
        for number in range(0, len(left), batch_rows):
            reach = left[: batch_rows + window]
            chosen = order.sample(reach, min(batch_rows, len(reach)))
            left = [position for position in left if position not in set(chosen)]
            self.commit(chosen, publish=number // batch_rows % 2 == 1, partial=[self.step_of(row) for row in left[:5]])
        self.commit([], final=True)


def read_rows(out: Path, folder: str = "data") -> list[Row]:
    """All parts in the order of their names."""
    rows: list[Row] = []
    for path in sorted((out / folder).iterdir()):
        rows += pq.read_table(path, partitioning=None).to_pylist()
    return rows


def dead_ordinals(out: Path) -> list[int]:
    return sorted(row["row"] for row in read_rows(out, "dead"))


def assert_complete(out: Path, total: int) -> None:
    """The finished run in `out` equals an undisturbed one, and has left nothing behind."""
    rows, lost = expected(total)
    assert read_rows(out) == rows
    assert dead_ordinals(out) == lost
    assert list((out / ".penstock" / "segments").iterdir()) == []
    assert list((out / ".penstock" / "staging").iterdir()) == []


def read_arrow(path: Path) -> list[dict]:
    with pa.ipc.open_file(path) as reader:
        return reader.read_all().to_pylist()


READERS: dict[str, Callable[[Path], list[dict]]] = {
    "parquet": lambda path: pq.read_table(path, partitioning=None).to_pylist(),
    "jsonl": lambda path: [msgspec.json.decode(line) for line in path.read_bytes().splitlines()],
    "arrow": read_arrow,
}
