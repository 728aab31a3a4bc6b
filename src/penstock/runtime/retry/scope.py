"""Dead rows that are run again: which they are, and their source rows as a source of their own.

A row that died below an `expand` needs its source row to be expanded again; its brothers and sisters that did not die
are left out then, since what became of them stands.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from penstock.core.counts import Counts
from penstock.data.base import Chunk, Origin, Source
from penstock.errors import InputError
from penstock.ledger.retry import Chosen, Key
from penstock.spec.graph import StepNode

__all__ = ["ChosenSource", "Selection", "counted_before"]


class Selection:
    """The dead rows of one retry."""

    def __init__(self, chosen: Iterable[Chosen]) -> None:
        self.chosen = sorted(chosen, key=lambda one: (one.position, one.path))
        self.positions = sorted({one.position for one in self.chosen})
        self._paths: dict[int, list[tuple[int, ...]]] = {}
        for one in self.chosen:
            self._paths.setdefault(one.position, []).append(one.path)

    @property
    def keys(self) -> set[Key]:
        return {one.key for one in self.chosen}

    def wants(self, position: int, path: tuple[int, ...]) -> bool:
        """Whether the row has died, or is above or below one that has."""
        return any(path[: len(dead)] == dead or dead[: len(path)] == path for dead in self._paths.get(position, ()))

    def missing(self, position: int, path: tuple[int, ...], children: int) -> tuple[int, ...] | None:
        """A dead row below `path` that has no parent among so many children; None: they all have."""
        depth = len(path)
        for dead in self._paths.get(position, ()):
            if len(dead) > depth and dead[:depth] == path and dead[depth] >= children:
                return dead
        return None


class ChosenSource:
    """The source rows of a selection, as a source (data.base.Source); positions are ordinals among them."""

    def __init__(self, source: Source, positions: Sequence[int]) -> None:
        self._source, self._positions = source, positions
        self.schema = source.schema
        self.proof = source.proof
        self.total_rows: int | None = len(positions)

    def read(self, start: int, skip: Callable[[int], bool] | None, max_rows: int) -> Chunk | None:
        """Raises InputError where the source has come to be shorter."""
        ordinals = range(start, min(start + max_rows, len(self._positions)))
        if not ordinals:
            return None
        wanted = {self._positions[ordinal] for ordinal in ordinals if skip is None or not skip(ordinal)}
        found = Chunk([], [], [], [], ordinals.stop, origins=[])
        if wanted:
            self._read(wanted, found)
        return found

    def _read(self, wanted: set[int], found: Chunk) -> None:
        assert found.origins is not None
        at, end = min(wanted), max(wanted) + 1
        while at < end:
            chunk = self._source.read(at, lambda position: position not in wanted, end - at)
            if chunk is None:
                raise InputError(f"the source ends before its row {at}; it had that row when the run was started")
            for position, row, size in zip(chunk.positions, chunk.rows, chunk.sizes_bytes, strict=True):
                found.positions.append(bisect_left(self._positions, position))
                found.rows.append(row)
                found.sizes_bytes.append(size)
                found.origins.append(Origin(position, (), *self._source.locate(position)))
            for bad in chunk.unreadable:
                if bad.position in wanted:
                    ordinal = bisect_left(self._positions, bad.position)
                    found.unreadable.append(msgspec.structs.replace(bad, position=ordinal, origin=bad.position))
            at = chunk.next_position

    def locate(self, position: int) -> tuple[str, int]:
        return self._source.locate(self._positions[position])

    def estimate_rows(self) -> int | None:
        return len(self._positions)

    def identity(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        digest = hashlib.blake2b(msgspec.msgpack.encode(self._positions), digest_size=16)
        return {"format": "chosen", "of": self._source.identity((known or {}).get("of")), "rows": digest.hexdigest()}

    def close(self) -> None:
        self._source.close()


def counted_before(selection: Selection, nodes: Sequence[StepNode], cut: Sequence[int]) -> Counts:
    """What a run has counted for chosen rows, and running them again will count once more; without `dead_sources`.

    cut: the steps at which the phases of the run end, () for one phase
    """
    steps: dict[str, list[int]] = {}
    passed: set[tuple[Key, str]] = set()
    by_name = {node.name: node for node in nodes}
    for one in selection.chosen:
        for node in _way_to(one, by_name, nodes, cut):
            at = (one.position, one.path[: _level(node, nodes)])
            if (at, node.name) not in passed:
                passed.add((at, node.name))
                figures = steps.setdefault(node.name, [0, 0, 0])
                figures[0] += 1
                figures[2 if node.name == one.step else 1] += 1
    sources = len(selection.positions)
    return Counts(
        rows_in=sources,
        dead=len(selection.chosen),
        ended_sources=sources,
        steps={name: (figures[0], figures[1], figures[2]) for name, figures in steps.items()},
    )


def _way_to(
    one: Chosen, by_name: Mapping[str, StepNode], nodes: Sequence[StepNode], cut: Sequence[int]
) -> list[StepNode]:
    """The steps that a dead row has come through, that one included at which it died. Where it died when it was to be
    written: all those up to the end of its phase."""
    node = by_name.get(one.step)
    if node is not None:
        # Of the phases before, a row has passed every step, also those of other branches; of its own, those above it.
        begin = max((end for end in cut if end <= node.index), default=0)
        return [*nodes[:begin], *(above for above in _above(node, nodes) if above.index >= begin), node]
    if one.step == "source":
        return []
    return list(nodes[: cut[one.phase]] if 0 <= one.phase < len(cut) else nodes)


def _above(node: StepNode, nodes: Sequence[StepNode]) -> list[StepNode]:
    found: dict[int, StepNode] = {}
    waiting = list(node.after)
    while waiting:
        index = waiting.pop()
        found[index] = nodes[index]
        waiting += nodes[index].after
    return [found[index] for index in sorted(found)]


def _level(node: StepNode, nodes: Sequence[StepNode]) -> int:
    """How many times a row was expanded before it comes to the step."""
    return sum(above.step.expands for above in _above(node, nodes))
