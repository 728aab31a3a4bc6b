"""The simulated ledger: what is durable, how it became so, and whether it is what the rows had to become.

It outlives the coordinator. A commit takes a while; if the coordinator is killed meanwhile, it is durable or it is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from penstock.core.counts import Counts, rejection
from penstock.core.events import Commit, Committed, Event
from penstock.core.shape import Progress, SourceMark
from penstock.sim.pipeline import Path, SimPipeline, Values
from penstock.sim.source import identity
from penstock.sim.tally import Coverage
from penstock.sim.violations import Violation

__all__ = ["Dead", "Paid", "SimBatch", "SimOutput", "SimSink"]


class SimOutput(Struct, gc=False):
    row: int
    position: int
    path: Path
    values: Values


class Dead(Struct, gc=False):
    """proven: the engine failed as often as it takes to give the row up, whatever its fate was to be."""

    position: int
    path: Path
    code: str
    proven: bool


class Paid(Struct, gc=False):
    """What came of a request of a row whose family has not ended. code: "" when it succeeded, else why the row died."""

    path: Path
    step: int
    code: str


class SimBatch(Struct):
    """A commit with what the coordinator holds of its rows. steps: begun, done, dead per step, of these rows; partial:
    what was paid for and is new, per source row that has not ended."""

    commit: Commit
    outputs: list[SimOutput]
    dead: list[Dead]
    filtered: list[tuple[int, Path]]
    steps: list[list[int]]
    partial: dict[int, list[Paid]]


class SimSink:
    def __init__(self, rows: int, pipeline: SimPipeline, tally: Coverage) -> None:
        self.rows = rows
        self.pipeline = pipeline
        self.tally = tally
        self.ended: set[int] = set()
        self.watermark = 0
        self.published_to = 0
        self.out = self.dead = self.filtered = 0
        self.dead_sources: set[int] = set()
        self.carried: set[int] = set()  # source rows of which the next phase gets something
        self.steps = [[0, 0, 0] for _ in pipeline.steps]
        self.final = False
        self.partial: dict[int, dict[tuple[Path, int], str]] = {}
        self.total_rows: int | None = None
        self.mark: SourceMark | None = None
        self.limit: int | None = None  # of this life
        self._below: int | None = None
        self._seen: dict[int, int] = {}  # position -> content, of this life
        self.contents: Counter[int] = Counter()  # of the rows that have ended
        self._writing: SimBatch | None = None

    def progress(self) -> Progress:
        """What a coordinator that begins now reads."""
        above = tuple(sorted(position for position in self.ended if position >= self.watermark))
        names = [step.name for step in self.pipeline.steps]
        counts = Counts(
            rows_in=self.rows if self.pipeline.carried else len(self.ended),
            out=self.out,
            dead=self.dead,
            filtered=self.filtered,
            dead_sources=len(self.dead_sources),
            ended_sources=len(self.ended) - len(self.carried),
            steps={name: (begun, done, dead) for name, (begun, done, dead) in zip(names, self.steps, strict=True)},
        )
        return Progress(self.watermark, above, counts, mark=self.mark)

    def begin_life(self, limit: int | None) -> None:
        """What is admitted: nothing from the limit on, but what lies between rows that have ended."""
        self.limit, self.final, self._seen = limit, False, {}
        self._below = None if limit is None else max(limit, max(self.ended, default=-1) + 1)
        if limit is not None and self._below != limit:
            self.tally.hit("limit below what has ended")

    def saw(self, position: int, content: int) -> None:
        """The source has given a row."""
        self._seen[position] = identity(content)

    def check_limit(self, admitted: list[int]) -> None:
        if self._below is not None and any(position >= self._below for position in admitted):
            raise Violation(f"rows {admitted} were admitted; the limit {self.limit} allows those below {self._below}")

    # ------------------------------------------------------------ writing

    def begin(self, batch: SimBatch) -> None:
        if self._writing is not None:
            raise Violation("a commit began while another was being written")
        self._writing = batch

    def finish(self) -> list[Event]:
        batch, self._writing = self._writing, None
        assert batch is not None
        return [Committed(cause=batch.commit.id, moved=self._apply(batch))]

    def cut_off(self, chance: float) -> None:
        """The coordinator is gone. What was being written became durable, or left nothing behind."""
        batch, self._writing = self._writing, None
        if batch is not None:
            self.tally.hit("commit: cut off, durable" if chance < 0.5 else "commit: cut off, lost")
            if chance < 0.5:
                self._apply(batch)

    def idle(self) -> bool:
        return self._writing is None

    def _apply(self, batch: SimBatch) -> Counts:
        commit = batch.commit
        self._check_rows(batch)
        self._check_mark(batch)
        self.ended.update(commit.ended)
        self.contents.update(self._seen[position] for position in commit.ended if position in self._seen)
        self._keep_partial(batch)
        self._check_watermark(commit)
        if self.pipeline.carries:
            self.carried.update(output.position for output in batch.outputs)
        else:
            self.out += len(batch.outputs)
        self.dead += len(batch.dead)
        self.filtered += len(batch.filtered)
        self._count_dead(dead.position for dead in batch.dead)
        for total, counts in zip(self.steps, batch.steps, strict=True):
            for at, count in enumerate(counts):
                total[at] += count
        self._check_counts(commit)
        self._publish(commit)
        return self._reject(batch)

    def _keep_partial(self, batch: SimBatch) -> None:
        for position in batch.commit.ended:
            self.partial.pop(position, None)
        for position, results in batch.partial.items():
            if position in self.ended:
                raise Violation(f"results of source row {position} were kept apart, but it has ended")
            kept = self.partial.setdefault(position, {})
            for paid in results:
                if (paid.path, paid.step) in kept:
                    raise Violation(f"row {position}{paid.path} was paid for twice at step {paid.step}")
                kept[paid.path, paid.step] = paid.code

    def _reject(self, batch: SimBatch) -> Counts:
        carries, died = self.pipeline.carries, {dead.position for dead in batch.dead}
        died.update(output.position for output in batch.outputs if self.pipeline.died_before(output.position))
        rejected = [output for output in batch.outputs if not self.pipeline.encodable(output.position, output.path)]
        if carries:
            left = {output.position for output in batch.outputs if output not in rejected}
            self.carried.difference_update({output.position for output in rejected} - left)
        else:
            self.out -= len(rejected)
        self.dead += len(rejected)
        self._count_dead(output.position for output in rejected)
        self.tally.hit("commit: rejected rows", len(rejected))
        self.tally.hit("dead: encode_error", len(rejected))
        finished = [output.position for output in batch.outputs]
        return rejection([output.position for output in rejected], finished, died, carries=carries)

    def _count_dead(self, positions: Iterable[int]) -> None:
        """A source row counts once, in whatever phase its rows die."""
        self.dead_sources.update(position for position in positions if not self.pipeline.died_before(position))

    def _publish(self, commit: Commit) -> None:
        if commit.publish_to is None:
            return
        if not self.published_to <= commit.publish_to <= self.watermark:
            raise Violation(
                f"published to {commit.publish_to}; before to {self.published_to}, the watermark is {self.watermark}"
            )
        self.published_to = commit.publish_to
        if any(position >= self.watermark for position in self.ended):
            self.tally.hit("commit: unpublished head")

    # ------------------------------------------------------------ what must hold

    def _check_rows(self, batch: SimBatch) -> None:
        """Each source row ends once, with exactly what had to become of it."""
        commit = batch.commit
        if commit.ended != sorted(set(commit.ended)) or not self.ended.isdisjoint(commit.ended):
            raise Violation(f"source rows {commit.ended} end in one commit; some of them ended before, or twice")
        found: dict[int, dict[Path, tuple[str, Values]]] = {position: {} for position in commit.ended}
        for output in batch.outputs:
            self._add(found, output.position, output.path, "out", output.values)
        for dead in batch.dead:
            self._add(found, dead.position, dead.path, f"!{dead.code}" if dead.proven else dead.code, ())
            self.tally.hit(f"dead: {dead.code}")
        for position, path in batch.filtered:
            self._add(found, position, path, "filtered", ())
        for position, ends in found.items():
            self._check_family(position, ends)

    @staticmethod
    def _add(
        found: dict[int, dict[Path, tuple[str, Values]]], position: int, path: Path, end: str, values: Values
    ) -> None:
        if position not in found:
            raise Violation(f"row {position}{path} was committed as {end}, but its source row has not ended")
        if path in found[position]:
            raise Violation(f"row {position}{path} ended twice in one commit: {found[position][path][0]} and {end}")
        found[position][path] = (end, values)

    def _check_family(self, position: int, ends: dict[Path, tuple[str, Values]]) -> None:
        expected = self.pipeline.outcomes(position)
        for path, (end, values) in ends.items():
            if end.startswith("!") and path not in expected:
                expected = {key: of for key, of in expected.items() if key[: len(path)] != path}
                continue  # it died before it could become the rows that were expected of it
            if path not in expected:
                raise Violation(f"row {position}{path} ended as {end}; there should be no such row")
            rights, content = expected[path]
            if not (end in rights or end.startswith("!") or (end == "out" and "encode_error" in rights)):
                raise Violation(f"row {position}{path} ended as {end}; it should have ended as {sorted(rights)}")
            if end == "out" and values != content:
                raise Violation(f"row {position}{path} was output as {values}; it should be {content}")
        missing = [path for path in expected if path not in ends]
        if missing:
            raise Violation(f"source row {position} has ended, but nothing became of {missing}")

    def _check_watermark(self, commit: Commit) -> None:
        mark = self.watermark
        while mark in self.ended:
            mark += 1
        if commit.watermark != mark:
            raise Violation(f"a commit says watermark {commit.watermark}; the first row that has not ended is {mark}")
        self.watermark = mark
        if commit.total_rows not in (None, self.rows):
            raise Violation(f"a commit says {commit.total_rows} rows in all; there are {self.rows}")
        self.total_rows = self.total_rows if commit.total_rows is None else commit.total_rows
        if commit.final:
            self.final = True
            complete = mark == self.rows or (self._below is not None and mark >= self._below)
            if not complete or commit.publish_to != mark or len(self.ended) != mark:
                raise Violation(f"a final commit at watermark {mark} of {self.rows}, with limit {self.limit}")

    def _check_mark(self, batch: SimBatch) -> None:
        """What a commit records of the source includes all of its rows."""
        mark = batch.commit.mark
        read = -1 if mark is None else mark.position - 1
        last = max([*batch.commit.ended, *batch.partial], default=-1)
        if last > read:
            raise Violation(f"a commit has row {last}; its mark ends at {read}")
        self.mark = mark

    def _check_counts(self, commit: Commit) -> None:
        counts = commit.counts
        counted = (counts.out, counts.dead, counts.filtered, counts.dead_sources, counts.ended_sources)
        true = (self.out, self.dead, self.filtered, len(self.dead_sources), len(self.ended) - len(self.carried))
        if counted != true:
            raise Violation(f"a commit counts out, dead, filtered, dead sources, ended as {counted}; they are {true}")
        if not counts.ended_sources <= counts.rows_in <= self.rows:
            raise Violation(f"a commit counts {counts.rows_in} rows in, {counts.ended_sources} ended")
        if [list(step) for step in counts.steps.values()] != self.steps:
            raise Violation(f"a commit counts {counts.steps} begun, done and dead by step; they are {self.steps}")

    def check_life_end(self, status: str) -> None:
        if not self.idle():
            raise Violation(f"the phase ended as {status} while a commit was being written")
        if status == "done" and not self.final:
            raise Violation("the phase ended as done without a final commit")
        if status == "stopped" and self.final:
            raise Violation("the phase ended as stopped, but all of it is done")

    def check_end(self, status: str, max_dead: int | float) -> None:
        """The whole run has ended."""
        dead = len(self.dead_sources)
        allowed = max_dead if isinstance(max_dead, int) else max_dead * max(1, len(self.ended)) + 1e-6
        too_many = dead > allowed
        if status == "done" and too_many:
            raise Violation(f"the run is done with {dead} dead source rows of {len(self.ended)}; the limit: {max_dead}")
        if status == "too_many_dead" and (not dead or (isinstance(max_dead, int) and not too_many)):
            raise Violation(f"the run ended for {dead} dead source rows; the limit: {max_dead}")
