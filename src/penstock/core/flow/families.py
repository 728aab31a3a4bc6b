"""Rows that have more than one task open: children of an `expand`, and rows that are in several branches at once.

Most rows never come here. A source row that meets an `expand` or a branch gets a Family, which counts what is still
open below it; when nothing is, the source row has ended, and all that came of it is committed together.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class Family(Struct):
    """All rows below one source row.

    open_tasks   tasks of its rows that have not ended
    bytes        memory of its finished rows, which wait for the rest
    finished     rows that ended with an output, in the order of ending
    dead         rows that ended dead
    children     rows that were made below it
    filtered     rows that ended without output
    steps        per step: rows that came to it, passed it, died at it; counted where each row ends
    """

    root: int
    steps: list[list[int]]
    open_tasks: int = 0
    bytes: int = 0
    finished: list[int] = []
    dead: list[int] = []
    children: list[int] = []
    filtered: int = 0

    def passed(self, steps: Sequence[int]) -> None:
        """A row has ended (with an output, early, or in its children), and has passed these steps before."""
        for step in steps:
            self.steps[step][0] += 1
            self.steps[step][1] += 1

    def ended_at(self, step: int, *, dead: bool) -> None:
        """It has ended early, at this step."""
        self.steps[step][0] += 1
        self.steps[step][2] += dead


def at_the_end(row: int) -> int:
    """What is awaited of `row` at the end of a phase with several exits: no task has a number below 0."""
    return -1 - row


class Families:
    """Families by root, the root of each child with the step that made it (None: a phase before), and what joins and
    ends of phases still wait for."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.by_root: dict[int, Family] = {}
        self.root_of: dict[int, int] = {}
        self.made_by: dict[int, int | None] = {}
        self.awaited: dict[int, tuple[int, int]] = {}  # task of a join, or at_the_end -> (results missing, bytes held)

    def of_row(self, row: int) -> Family | None:
        return self.by_root.get(self.root_of.get(row, row))

    def of_root(self, root: int) -> Family:
        """The family of a source row, made if there is none."""
        family = self.by_root.get(root)
        if family is None:
            family = self.by_root[root] = Family(root, [[0, 0, 0] for _ in range(self._steps)])
        return family

    def adopt(self, root: int, first: int, count: int, made_by: int | None) -> None:
        children = range(first, first + count)
        self.by_root[root].children.extend(children)
        for child in children:
            self.root_of[child] = root
            self.made_by[child] = made_by

    def close(self, family: Family) -> None:
        del self.by_root[family.root]
        for child in family.children:
            del self.root_of[child], self.made_by[child]

    def arrive(self, task: int, needed: int, size: int) -> int | None:
        """One more result for a join, or for the end of the phase. None: others are missing; else the bytes that
        waited."""
        # An entry lives only while results are missing, so that a check can hold every one against an open task.
        missing, held = self.awaited.pop(task, (needed, 0))
        if missing > 1:
            self.awaited[task] = (missing - 1, held + size)
            return None
        return held

    def forget(self, row: int) -> int:
        """Drop what waits for joins of `row`, and for its end; the bytes that this held."""
        tasks = range(row * self._steps, (row + 1) * self._steps)
        return sum(self.awaited.pop(task, (0, 0))[1] for task in (at_the_end(row), *tasks))

    def held_bytes(self) -> int:
        return sum(held for _, held in self.awaited.values()) + sum(f.bytes for f in self.by_root.values())
