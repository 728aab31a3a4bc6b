"""Rows that have more than one task open: children of an `expand`, and rows that are in several branches at once.

Most rows never come here. A source row that meets an `expand` or a branch gets a Family, which counts what is still
open below it; when nothing is, the source row has ended, and all that came of it is committed together.
"""

from __future__ import annotations

from msgspec import Struct


class Family(Struct):
    """All rows below one source row.

    open_tasks   tasks of its rows that have not ended
    bytes        memory of its finished rows, which wait for the rest
    finished     rows that ended with an output, in the order of ending
    dead         rows that ended dead
    children     rows that were made below it
    filtered     rows that ended without output
    steps        per step: tasks begun, done, dead
    """

    root: int
    steps: list[list[int]]
    open_tasks: int = 0
    bytes: int = 0
    finished: list[int] = []
    dead: list[int] = []
    children: list[int] = []
    filtered: int = 0


class Families:
    """Families by root, the root of each child, and what a join still waits for."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.by_root: dict[int, Family] = {}
        self.root_of: dict[int, int] = {}
        self._awaited: dict[int, tuple[int, int]] = {}  # task of a join -> (results missing, bytes held)

    def of_row(self, row: int) -> Family | None:
        return self.by_root.get(self.root_of.get(row, row))

    def of_root(self, root: int) -> Family:
        """The family of a source row, made if there is none."""
        family = self.by_root.get(root)
        if family is None:
            family = self.by_root[root] = Family(root, [[0, 0, 0] for _ in range(self._steps)])
        return family

    def adopt(self, root: int, first: int, count: int) -> None:
        children = range(first, first + count)
        self.by_root[root].children.extend(children)
        for child in children:
            self.root_of[child] = root

    def close(self, family: Family) -> None:
        del self.by_root[family.root]
        for child in family.children:
            del self.root_of[child]

    def arrive(self, task: int, needed: int, size: int) -> int | None:
        """One more result for a join. None: others are missing; else the bytes that had waited."""
        missing, held = self._awaited.pop(task, (needed, 0))
        if missing > 1:
            self._awaited[task] = (missing - 1, held + size)
            return None
        return held

    def forget(self, task: int) -> int:
        """Drop what waits for the join `task`; the bytes that it held."""
        return self._awaited.pop(task, (0, 0))[1]

    def held_bytes(self) -> int:
        return sum(held for _, held in self._awaited.values()) + sum(f.bytes for f in self.by_root.values())
