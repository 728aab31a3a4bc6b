"""Runs and retries without engines: every row meets a fate that is drawn, and ledger, sources and `retry` are real."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from ledger_support import Builder, diff

from penstock.core.counts import Counts
from penstock.core.events import CHILD_BASE
from penstock.data.base import Source
from penstock.ledger import Ledger
from penstock.ledger.base import CommitBatch
from penstock.runtime.retry.scope import ChosenSource, Selection
from penstock.runtime.rows.store import RowStore
from penstock.runtime.run.scope import cut_for_retry, open_pipeline_source
from penstock.spec.identity import pipeline_identity
from penstock.spec.load import load_pipeline
from penstock.spec.pipeline import Pipeline
from penstock.spec.steps import Expand, Filter

CODES = ("refused", "engine_error", "too_long")  # of rows that die in rounds before the first, second, third
NEVER = len(CODES)  # the round from which on nothing dies
STEPS: list[dict[str, Any]] = [
    {"generate": {"model": "m", "prompt": "{{ text }}", "output": "out1", "name": "first"}},
    {"expand": {"function": "json:loads", "version": "1", "name": "split"}},
    {"filter": {"expr": "n", "name": "some"}},
    {"generate": {"model": "m", "prompt": "{{ text }}", "output": "out2", "name": "second"}},
    {"expand": {"function": "json:loads", "version": "1", "name": "again"}},
    {"generate": {"model": "m", "prompt": "{{ text }}", "output": "out3", "name": "last"}},
]


class Drawn(NamedTuple):
    """seed: of the fates; deaths: the share of rows that die at each step; cut: where phases end, () for one."""

    seed: int
    deaths: float
    cut: tuple[int, ...]


def pipeline_over(folder: Path, paths: Sequence[str]) -> Pipeline:
    written = {
        "models": {"m": {"ref": "mock:m"}},
        "source": {"path": [str(folder / path) for path in paths], "format": "jsonl"},
        "steps": STEPS,
        "sink": {"path": str(folder / "out"), "format": "jsonl"},
    }
    return load_pipeline(json.dumps(written), "p.yaml")


class Model:
    """One run, or one retry (selection), of which rows below `round` die."""

    def __init__(self, pipeline: Pipeline, drawn: Drawn, round: int, selection: Selection | None = None) -> None:
        self._nodes, self._drawn, self._round, self._selection = pipeline.order(), drawn, round, selection
        self._random = random.Random(f"{drawn.seed}/{round}")
        self._pipeline = pipeline

    def run(self, out: Path) -> Counts:
        """To its end; what it has counted."""
        opened = open_pipeline_source(self._pipeline)
        chosen = self._selection
        source: Source = opened if chosen is None else ChosenSource(opened, chosen.positions)
        cut = self._drawn.cut if chosen is None else cut_for_retry(self._drawn.cut, len(self._nodes))
        with Ledger.open(
            out,
            identity=pipeline_identity(self._pipeline),
            input_identity=source.identity(),
            sink_format="jsonl",
            order="input",
            diff=diff,
            locate=source.locate,
            cut=cut,
        ) as ledger:
            for phase in range(len(self._drawn.cut) or 1):
                ledger.begin_phase(Builder)
                self._phase(ledger, source if phase == 0 else ledger.inputs(), phase)
            counts = ledger.entry.counts
        source.close()
        return counts

    def _phase(self, ledger: Ledger, source: Source, phase: int) -> None:
        ends = self._drawn.cut or (len(self._nodes),)
        begin, end = (0, *ends)[phase], ends[phase]
        self._store = RowStore(source)
        self._next_row = CHILD_BASE
        self._steps = {name: list(figures) for name, figures in ledger.state.counts.steps.items()}
        ended: dict[int, tuple[list[int], list[int], int]] = {}
        at = 0
        while (chunk := source.read(at, None, 3)) is not None:
            self._store.add(chunk)
            at = chunk.next_position
            for position in chunk.positions:
                ended[position] = self._family([position], begin, end)
            for family in chunk.families:
                first, self._next_row = self._next_row, self._next_row + len(family.rows)
                self._store.adopt_family(family.position, first)
                ended[family.position] = self._family(list(range(first, self._next_row)), begin, end)
            for bad in chunk.unreadable:
                self._store.record_unreadable(bad)
                ended[bad.position] = ([], [bad.position], 0)
        self._commit(ledger, ended, phase, carries=end < len(self._nodes) or self._selection is not None)

    def _family(self, rows: list[int], begin: int, end: int) -> tuple[list[int], list[int], int]:
        """What becomes of the rows that are read at one position: finished, dead, how many are filtered."""
        finished, dead, filtered = [], [], 0
        waiting = [(row, begin) for row in reversed(rows)]
        while waiting:
            row, index = waiting.pop()
            if index == end:
                finished.append(row)
                continue
            node, figures = self._nodes[index], self._steps.setdefault(self._nodes[index].name, [0, 0, 0])
            figures[0] += 1
            place = self._store.source_place(row)
            fate = random.Random(f"{self._drawn.seed}/{node.name}/{place}")
            if fate.random() < self._drawn.deaths and (level := fate.randrange(NEVER + 1)) >= self._round:
                code = CODES[min(level, NEVER - 1)]
                if level == NEVER and index == end - 1:  # what no column holds, for ever
                    self._store.rows[row] = {"n": "no integer", "text": ""}
                    figures[1] += 1
                    finished.append(row)
                    continue
                figures[2] += 1
                self._store.record_dead(row, node.name, code, "no", 1)
                dead.append(row)
                continue
            if isinstance(node.step, Filter) and fate.random() < 0.2:
                self._store.drop([row])
                filtered += 1
                continue
            figures[1] += 1
            content = self._store.rows[row]
            self._store.rows[row] = {"n": content["n"], "text": f"{content['text']} {node.name}@{place}"}
            if not isinstance(node.step, Expand):
                waiting.append((row, index + 1))
                continue
            children = [(child, dict(self._store.rows[row])) for child in range(fate.randrange(3))]
            if self._selection is not None:
                assert self._selection.missing(*place, len(children)) is None
                position, path = place
                children = [one for one in children if self._selection.wants(position, (*path, one[0]))]
            first, self._next_row = self._next_row, self._next_row + len(children)
            self._store.adopt(row, first, children)
            waiting += [(child, index + 1) for child in range(self._next_row - 1, first - 1, -1)]
        return finished, dead, filtered

    def _commit(
        self, ledger: Ledger, ended: dict[int, tuple[list[int], list[int], int]], phase: int, *, carries: bool
    ) -> None:
        """In batches of positions in any order."""
        order = self._random.sample(sorted(ended), len(ended))
        counts, done, watermark = ledger.state.counts, set[int](), 0
        steps = {name: (begun, out, dead) for name, (begun, out, dead) in self._steps.items()}
        while True:
            here = sorted(order[: (size := self._random.randrange(1, 6))])
            order = order[size:]
            done |= set(here)
            while watermark in done:
                watermark += 1
            known = [self._store.origin(row).source_dead for position in here for row in ended[position][1][:1]]
            finished = self._store.take_finished([row for position in here for row in ended[position][0]])
            dead = self._store.take_dead([row for position in here for row in ended[position][1]])
            going_on = {item.position for item in finished} if carries else set()
            counts = msgspec.structs.replace(
                counts,
                rows_in=counts.rows_in + (len(here) if phase == 0 else 0),
                out=counts.out + (0 if carries else len(finished)),
                dead=counts.dead + len(dead),
                filtered=counts.filtered + sum(ended[position][2] for position in here),
                dead_sources=counts.dead_sources + known.count(False),
                ended_sources=counts.ended_sources + len(here) - len(going_on),
                steps=steps,
            )
            total = len(ended) if phase == 0 and not order else None
            batch = CommitBatch(finished, dead, here, watermark, watermark, counts, total, not order)
            counts = ledger.commit(batch).counts
            if not order:
                return
