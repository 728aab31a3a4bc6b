"""What simulated rows are, what the steps make of them, and so what must come out of a run that nothing disturbed.

Everything follows from (seed, position, path, step), so that a row fares alike in every attempt, life and process.
A row is (position, path): the ordinal of its source row, and the child indexes below it.
"""

from __future__ import annotations

from msgspec import Struct

from penstock.core.shape import StepShape

__all__ = ["Hazards", "SimPipeline", "SimStep", "mix"]

Path = tuple[int, ...]
Values = tuple[tuple[int, Path], ...]  # (step, path of the row when it passed the step), by step

_MASK = (1 << 64) - 1
MAX_CHILDREN = 3


def mix(*numbers: int) -> float:
    """A number in [0, 1) that depends on all of `numbers`, the same in every process (splitmix64)."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = ((state ^ number) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state / (1 << 64)


class SimStep(Struct, frozen=True):
    """kind: generate | filter | expand. Its requests run in `pool`."""

    name: str
    kind: str = "generate"
    after: tuple[int, ...] = ()
    pool: int = 0


class Hazards(Struct, frozen=True):
    """What share of the rows has which fate: of source rows, of rows at a step, of outputs."""

    unreadable: float = 0.0
    unrendered: float = 0.0
    refused: float = 0.0
    poison: float = 0.0
    unencodable: float = 0.0
    filtered: float = 0.3


class SimPipeline:
    """The steps of all phases, of which one phase runs steps[begin:end]. carried: its rows come from a phase before,
    which may have left several of one source row, or some of which others died."""

    def __init__(
        self,
        seed: int,
        steps: tuple[SimStep, ...],
        hazards: Hazards,
        begin: int = 0,
        end: int | None = None,
        *,
        carried: bool = False,
    ) -> None:
        self.carried = carried
        self.seed = seed
        self.steps = steps
        self.begin, self.end = begin, len(steps) if end is None else end
        self.hazards = hazards
        self.next: list[list[int]] = [[] for _ in steps]
        for index, step in enumerate(steps):
            for before in step.after:
                self.next[before].append(index)
        self.above: list[set[int]] = []  # steps of all phases that a row passes before each
        for step in steps:
            self.above.append(set(step.after).union(*(self.above[before] for before in step.after)))
        self.entries = [index for index in range(self.begin, self.end) if not steps[index].after]
        following = self.next[self.begin : self.end]
        self.is_chain = len(self.entries) == 1 and all(len(steps) <= 1 for steps in following)
        self._fates: dict[tuple[int, Path, int], str] = {}

    @property
    def carries(self) -> bool:
        """Whether the rows that the phase finishes go to a next one."""
        return self.end < len(self.steps)

    def shapes(self) -> tuple[StepShape, ...]:
        return tuple(StepShape(step.name, step.after, paid=True) for step in self.steps)

    def draw(self, what: int, position: int, path: Path, step: int = 0) -> float:
        return mix(self.seed, what, position, step, *(index + 1 for index in path))

    def left(self, position: int) -> list[Path]:
        """The rows that there are of a source row when the phase begins, by their paths."""
        draw = self.draw(8, position, ())
        if not self.carried or draw < 0.75:
            return [()]
        return [(child,) for child in range(MAX_CHILDREN) if self.draw(9, position, (child,)) < draw] or [()]

    def died_before(self, position: int) -> bool:
        """Whether a row of the source row has died in a phase before."""
        return self.carried and self.draw(10, position, ()) < 0.1

    def readable(self, position: int) -> bool:
        return self.carried or self.draw(1, position, ()) >= self.hazards.unreadable

    def size_bytes(self, position: int, path: Path) -> int:
        return 20 + int(200 * self.draw(2, position, path))

    def encodable(self, position: int, path: Path) -> bool:
        return self.draw(3, position, path) >= self.hazards.unencodable

    def fate(self, position: int, path: Path, step: int) -> str:
        """What the step makes of the row: ok | filtered | unrendered | refused | poison."""
        key = (position, path, step)
        found = self._fates.get(key)
        if found is None:
            found = self._fates[key] = self._draw_fate(position, path, step)
        return found

    def _draw_fate(self, position: int, path: Path, step: int) -> str:
        share, hazards, kind = self.draw(4, position, path, step), self.hazards, self.steps[step].kind
        for fate, of in (
            ("unrendered", hazards.unrendered),
            ("refused", hazards.refused),
            ("poison", hazards.poison if kind == "generate" else 0.0),
            ("filtered", hazards.filtered if kind == "filter" else 0.0),
        ):
            if share < of:
                return fate
            share -= of
        return "ok"

    def children(self, position: int, path: Path, step: int) -> int:
        return 1 + int(MAX_CHILDREN * self.draw(5, position, path, step))

    def work(self, position: int, path: Path, step: int) -> tuple[int, int, int]:
        """Prompt tokens, limit of output tokens, output tokens. A few rows take twelve times as long as most."""
        draw = self.draw(6, position, path, step)
        tokens = 4 + int(draw * 12)
        if draw > 0.97:
            tokens *= 12
        return 2 + int(self.draw(7, position, path, step) * 30), tokens + int(draw * 1000) % 7, tokens

    # ------------------------------------------------------------ what must come out

    def outcomes(self, position: int) -> dict[Path, tuple[frozenset[str], Values]]:
        """How each row below a source row may end (out, filtered or a dead code), and what it holds if it is output.

        Several endings are right only where branches end a row in different ways: the first one counts.
        """
        found: dict[Path, tuple[frozenset[str], Values]] = {}
        if not self.readable(position):
            return {(): (frozenset(("bad_json",)), ())}
        for path in self.left(position):
            self._follow(position, path, self.entries, (), found)
        return found

    def _follow(
        self,
        position: int,
        path: Path,
        entries: list[int],
        values: Values,
        found: dict[Path, tuple[frozenset[str], Values]],
    ) -> None:
        passed = {step for step, _ in values}
        early: set[str] = set()
        for step in range(self.begin, self.end):
            shape = self.steps[step]
            if not (step in entries or (shape.after and passed.issuperset(shape.after))) or step in passed:
                continue
            fate = self.fate(position, path, step)
            if fate != "ok":
                early.add(_ENDS[fate])
                continue
            passed.add(step)
            values = (*values, (step, path))
            if shape.kind == "expand":
                for child in range(self.children(position, path, step)):
                    self._follow(position, (*path, child), self.next[step], values, found)
                return
        ends = early or {"out" if self.encodable(position, path) else "encode_error"}
        found[path] = (frozenset(ends), values)


_ENDS = {
    "filtered": "filtered",
    "unrendered": "template_missing_field",
    "refused": "refused",
    "poison": "engine_crash",
}
