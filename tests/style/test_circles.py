"""Modules that import each other: one circle is known, and no further one comes in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from style_source import imports, module_name, python_files

# Package -> circles that may be there. The simulator's world, its coordinator, its hosts and strikes are one.
KNOWN = {"penstock.sim": 1}
# A description that runs itself: Rows.run() and Rows.retry() import what runs it when they are called.
DOOR = "penstock.spec.rows"


def graph() -> dict[str, set[str]]:
    """Module -> the modules of src/ that it imports, also inside functions and for types only."""
    files = {module_name(path): path for path in python_files("src")}
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        names = {target for item in imports(path) for target in (item.dotted, item.module) if target in files}
        found[name] = {target for target in names if target not in (name, "penstock")}
    found[DOOR] = {target for target in found[DOOR] if not target.startswith("penstock.runtime")}
    return found


def circles(edges: Mapping[str, set[str]]) -> list[set[str]]:
    """Groups of modules of which each reaches each other one (Tarjan)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        path.append(name)
        for target in sorted(edges[name]):
            if target not in order:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in path:
                low[name] = min(low[name], order[target])
        if low[name] == order[name]:
            at = path.index(name)
            if len(path) - at > 1:
                found.append(set(path[at:]))
            del path[at:]

    for name in sorted(edges):
        if name not in order:
            visit(name)
    return found


def package_of(circle: set[str]) -> str:
    """The package in which they all lie, `penstock` where they lie in several."""
    packages = {name.rpartition(".")[0] for name in circle}
    return packages.pop() if len(packages) == 1 else "penstock"


def test_modules_import_in_one_direction() -> None:
    found = circles(graph())
    beyond = Counter(map(package_of, found)) - Counter(KNOWN)
    unknown = [sorted(circle) for circle in found if package_of(circle) in beyond]
    assert not unknown, f"Modules that import each other can't be read or tested one by one: {unknown}"


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]
