"""Which nodes take which groups of devices: a group never spans nodes.

First largest-first, each group on the node that it fills best; for sizes of which each divides the next, and devices
of one kind, that finds a place for everything that has one. Where it finds none although there are devices enough, an
exact search looks at all ways that differ, up to a limit.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from penstock.planner.cluster import Kind

__all__ = ["DeviceGroups", "FreeDevices", "pack"]

MAX_SEARCH_STEPS = 50_000  # of the exact search: some tenths of a second
MAX_SEARCH_NODES = 400  # it recurses once for each node


class DeviceGroups(Struct, frozen=True):
    """`count` groups of `size` devices each, that may lie on any of `kinds`."""

    size: int
    count: int
    kinds: tuple[Kind, ...]


class FreeDevices:
    """Free devices by kind and number: which nodes have just so many. Changed by `take`."""

    def __init__(self, nodes: Sequence[tuple[Kind, int]]) -> None:
        """`nodes`: kind and number of free devices of each; a node is its index from then on."""
        self.kind = [kind for kind, _ in nodes]
        self.free = [free for _, free in nodes]
        self._nodes: dict[Kind, dict[int, list[int]]] = {}
        for index in reversed(range(len(nodes))):  # popped from the end: the first node first
            self._nodes_with(self.kind[index], self.free[index]).append(index)

    def copy(self) -> FreeDevices:
        made = FreeDevices([])
        made.kind, made.free = self.kind, list(self.free)
        made._nodes = {
            kind: {free: list(nodes) for free, nodes in by_free.items()} for kind, by_free in self._nodes.items()
        }
        return made

    def _nodes_with(self, kind: Kind, free: int) -> list[int]:
        return self._nodes.setdefault(kind, {}).setdefault(free, [])

    def best(self, kind: Kind, size: int) -> int | None:
        """The least number of free devices, `size` at least, that a node of this kind has."""
        return min((free for free, nodes in self._nodes.get(kind, {}).items() if nodes and free >= size), default=None)

    def take(self, kind: Kind, size: int) -> int | None:
        """Give `size` devices of the node that they fill best; its index, or None where no node has so many."""
        free = self.best(kind, size)
        if free is None:
            return None
        node = self._nodes[kind][free].pop()
        self.free[node] = free - size
        self._nodes_with(kind, free - size).append(node)
        return node

    def take_from(self, node: int, size: int) -> None:
        kind, free = self.kind[node], self.free[node]
        self._nodes[kind][free].remove(node)
        self.free[node] = free - size
        self._nodes_with(kind, free - size).append(node)

    def groups(self, kind: Kind, size: int) -> int:
        """How many groups of `size` the nodes of this kind hold."""
        return sum(free // size * len(nodes) for free, nodes in self._nodes.get(kind, {}).items())

    def kinds(self) -> tuple[Kind, ...]:
        return tuple(sorted(self._nodes))

    def counts(self) -> list[tuple[Kind, int, int]]:
        """(kind, free devices, nodes that have so many), for nodes that have any."""
        return [
            (kind, free, len(nodes))
            for kind, by_free in sorted(self._nodes.items())
            for free, nodes in sorted(by_free.items())
            if nodes and free
        ]


def pack(items: Sequence[DeviceGroups], devices: FreeDevices) -> list[list[int]] | None:
    """The node of each group, by item; takes the devices from `devices`. None where they do not all have a place.

    `devices` is left in pieces then; give a copy.
    """
    trial = devices.copy()
    placed = _largest_first(items, trial)
    if placed is not None:
        _largest_first(items, devices)
        return placed
    if not _enough(items, devices):
        return None
    patterns = _search(items, devices)
    return None if patterns is None else _apply(items, patterns, devices)


def _largest_first(items: Sequence[DeviceGroups], devices: FreeDevices) -> list[list[int]] | None:
    placed: list[list[int]] = [[] for _ in items]
    wanted = _wanted(items)
    # Small groups fit into what large ones leave, not the other way round; of equal ones, those that may lie on fewer
    # kinds of devices have the first choice.
    for index in sorted(range(len(items)), key=lambda i: (-items[i].size, len(items[i].kinds), i)):
        item = items[index]
        order = sorted(item.kinds, key=lambda kind: (wanted.get(kind, 0), kind))
        for _ in range(item.count):
            node = next((found for kind in order if (found := devices.take(kind, item.size)) is not None), None)
            if node is None:
                return None
            placed[index].append(node)
    return placed


def _wanted(items: Sequence[DeviceGroups]) -> dict[Kind, int]:
    """How many items may use a kind: what fewer can use is taken first."""
    counts: dict[Kind, int] = {}
    for item in items:
        for kind in item.kinds:
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def _enough(items: Sequence[DeviceGroups], devices: FreeDevices) -> bool:
    """Whether each item alone has places enough, and all together devices enough."""
    for item in items:
        if sum(devices.groups(kind, item.size) for kind in item.kinds) < item.count:
            return False
    kinds = dict.fromkeys(kind for item in items for kind in item.kinds)
    return sum(item.size * item.count for item in items) <= sum(devices.groups(kind, 1) for kind in kinds)


Pattern = tuple[int, ...]  # groups of each item on one node


def _search(items: Sequence[DeviceGroups], devices: FreeDevices) -> list[tuple[Kind, int, Pattern]] | None:
    """A pattern for each node that gets any group, found by trying all that differ; None where there is none."""
    bins = [(kind, free) for kind, free, nodes in devices.counts() for _ in range(nodes)]
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


def _patterns(items: Sequence[DeviceGroups], kind: Kind, free: int, left: Pattern) -> list[Pattern]:
    """Fillings of one node to which no further group can be added, fullest first."""
    found: list[Pattern] = []

    def extend(index: int, spare: int, chosen: tuple[int, ...]) -> None:
        if index == len(items):
            if not any(
                item.size <= spare and kind in item.kinds and chosen[i] < left[i] for i, item in enumerate(items)
            ):
                found.append(chosen)
            return
        item = items[index]
        most = min(left[index], spare // item.size) if kind in item.kinds else 0
        for count in range(most, -1, -1):
            extend(index + 1, spare - count * item.size, (*chosen, count))

    extend(0, free, ())
    sizes = [item.size for item in items]
    return sorted(found, key=lambda pattern: -sum(n * s for n, s in zip(pattern, sizes, strict=True)))


def _apply(
    items: Sequence[DeviceGroups], patterns: list[tuple[Kind, int, Pattern]], devices: FreeDevices
) -> list[list[int]]:
    placed: list[list[int]] = [[] for _ in items]
    untouched: dict[tuple[Kind, int], list[int]] = {}
    for node in reversed(range(len(devices.free))):
        untouched.setdefault((devices.kind[node], devices.free[node]), []).append(node)
    for kind, free, pattern in patterns:
        node = untouched[kind, free].pop()
        for index, count in enumerate(pattern):
            for _ in range(count):
                devices.take_from(node, items[index].size)
                placed[index].append(node)
    return placed
