"""Which nodes take which groups of devices: a group never spans nodes.

First largest-first, each group on the node that it fills best; for sizes of which each divides the next, and devices
of one kind, that finds a place for everything that has one. Where it finds none although there are devices enough, an
exact search looks at all ways that differ, up to a limit.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from penstock.planner.cluster import Kind

__all__ = ["Floor", "Item", "pack"]

MAX_SEARCH_STEPS = 50_000  # of the exact search: some tenths of a second
MAX_SEARCH_NODES = 400  # it recurses once for each node


class Item(Struct, frozen=True):
    """`count` groups of `size` devices each, that may lie on any of `kinds`."""

    size: int
    count: int
    kinds: tuple[Kind, ...]


class Floor:
    """Free devices by kind and number: which nodes have just so many. Changed by `take`."""

    def __init__(self, nodes: Sequence[tuple[Kind, int]]) -> None:
        """`nodes`: kind and number of free devices of each; a node is its index from then on."""
        self.kind = [kind for kind, _ in nodes]
        self.free = [free for _, free in nodes]
        self._shelves: dict[Kind, dict[int, list[int]]] = {}
        for index in reversed(range(len(nodes))):  # popped from the end: the first node first
            self._shelf(self.kind[index], self.free[index]).append(index)

    def copy(self) -> Floor:
        made = Floor([])
        made.kind, made.free = self.kind, list(self.free)
        made._shelves = {
            kind: {free: list(nodes) for free, nodes in shelves.items()} for kind, shelves in self._shelves.items()
        }
        return made

    def _shelf(self, kind: Kind, free: int) -> list[int]:
        return self._shelves.setdefault(kind, {}).setdefault(free, [])

    def best(self, kind: Kind, size: int) -> int | None:
        """The least number of free devices, `size` at least, that a node of this kind has."""
        return min(
            (free for free, nodes in self._shelves.get(kind, {}).items() if nodes and free >= size), default=None
        )

    def take(self, kind: Kind, size: int) -> int | None:
        """Give `size` devices of the node that they fill best; its index, or None where no node has so many."""
        free = self.best(kind, size)
        if free is None:
            return None
        node = self._shelves[kind][free].pop()
        self.free[node] = free - size
        self._shelf(kind, free - size).append(node)
        return node

    def take_from(self, node: int, size: int) -> None:
        kind, free = self.kind[node], self.free[node]
        self._shelves[kind][free].remove(node)
        self.free[node] = free - size
        self._shelf(kind, free - size).append(node)

    def groups(self, kind: Kind, size: int) -> int:
        """How many groups of `size` the nodes of this kind hold."""
        return sum(free // size * len(nodes) for free, nodes in self._shelves.get(kind, {}).items())

    def kinds(self) -> tuple[Kind, ...]:
        return tuple(sorted(self._shelves))

    def counts(self) -> list[tuple[Kind, int, int]]:
        """(kind, free devices, nodes that have so many), for nodes that have any."""
        return [
            (kind, free, len(nodes))
            for kind, shelves in sorted(self._shelves.items())
            for free, nodes in sorted(shelves.items())
            if nodes and free
        ]


def pack(items: Sequence[Item], floor: Floor) -> list[list[int]] | None:
    """The node of each group, by item; takes the devices from `floor`. None where they do not all have a place.

    `floor` is left in pieces then; give a copy.
    """
    trial = floor.copy()
    placed = _largest_first(items, trial)
    if placed is not None:
        _largest_first(items, floor)
        return placed
    if not _enough(items, floor):
        return None
    patterns = _search(items, floor)
    return None if patterns is None else _apply(items, patterns, floor)


def _largest_first(items: Sequence[Item], floor: Floor) -> list[list[int]] | None:
    placed: list[list[int]] = [[] for _ in items]
    wanted = _wanted(items)
    for index in sorted(range(len(items)), key=lambda i: (-items[i].size, len(items[i].kinds), i)):
        item = items[index]
        order = sorted(item.kinds, key=lambda kind: (wanted.get(kind, 0), kind))
        for _ in range(item.count):
            node = next((found for kind in order if (found := floor.take(kind, item.size)) is not None), None)
            if node is None:
                return None
            placed[index].append(node)
    return placed


def _wanted(items: Sequence[Item]) -> dict[Kind, int]:
    """How many items may use a kind: what fewer can use is taken first."""
    counts: dict[Kind, int] = {}
    for item in items:
        for kind in item.kinds:
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def _enough(items: Sequence[Item], floor: Floor) -> bool:
    """Whether each item alone has places enough, and all together devices enough."""
    for item in items:
        if sum(floor.groups(kind, item.size) for kind in item.kinds) < item.count:
            return False
    kinds = dict.fromkeys(kind for item in items for kind in item.kinds)
    return sum(item.size * item.count for item in items) <= sum(floor.groups(kind, 1) for kind in kinds)


Pattern = tuple[int, ...]  # groups of each item on one node


def _search(items: Sequence[Item], floor: Floor) -> list[tuple[Kind, int, Pattern]] | None:
    """A pattern for each node that gets any group, found by trying all that differ; None where there is none."""
    bins = [(kind, free) for kind, free, nodes in floor.counts() for _ in range(nodes)]
    start = tuple(item.count for item in items)
    failed: set[tuple[int, Pattern]] = set()
    steps = 0

    def place(index: int, left: Pattern) -> list[tuple[Kind, int, Pattern]] | None:
        nonlocal steps
        if not any(left):
            return []
        if index == len(bins) or (index, left) in failed or steps >= MAX_SEARCH_STEPS:
            return None
        steps += 1
        kind, free = bins[index]
        for pattern in _patterns(items, kind, free, left):
            rest = tuple(have - put for have, put in zip(left, pattern, strict=True))
            found = place(index + 1, rest)
            if found is not None:
                return [(kind, free, pattern), *found] if any(pattern) else found
        failed.add((index, left))
        return None

    return place(0, start) if len(bins) <= MAX_SEARCH_NODES else None


def _patterns(items: Sequence[Item], kind: Kind, free: int, left: Pattern) -> list[Pattern]:
    """Fillings of one node to which no further group can be added, fullest first."""
    found: list[Pattern] = []

    def extend(index: int, room: int, chosen: tuple[int, ...]) -> None:
        if index == len(items):
            if not any(
                item.size <= room and kind in item.kinds and chosen[i] < left[i] for i, item in enumerate(items)
            ):
                found.append(chosen)
            return
        item = items[index]
        most = min(left[index], room // item.size) if kind in item.kinds else 0
        for count in range(most, -1, -1):
            extend(index + 1, room - count * item.size, (*chosen, count))

    extend(0, free, ())
    sizes = [item.size for item in items]
    return sorted(found, key=lambda pattern: -sum(n * s for n, s in zip(pattern, sizes, strict=True)))


def _apply(items: Sequence[Item], patterns: list[tuple[Kind, int, Pattern]], floor: Floor) -> list[list[int]]:
    placed: list[list[int]] = [[] for _ in items]
    untouched: dict[tuple[Kind, int], list[int]] = {}
    for node in reversed(range(len(floor.free))):
        untouched.setdefault((floor.kind[node], floor.free[node]), []).append(node)
    for kind, free, pattern in patterns:
        node = untouched[kind, free].pop()
        for index, count in enumerate(pattern):
            for _ in range(count):
                floor.take_from(node, items[index].size)
                placed[index].append(node)
    return placed
