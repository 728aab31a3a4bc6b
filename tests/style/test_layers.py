"""Imports point one way: a room may use those above it and none beside it (design/0001)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from style_source import PACKAGE, Finding, Import, assert_none, imports, python_files

FOUNDATION = {
    "distribution",
    "engine_info",
    "errors",
    "version",
    "faults",
    "file_names",
    "formats",
    "function_transfer",
    "redaction",
    "terminal",
    "units",
}
TRUNK = FOUNDATION | {"spec", "core", "planner", "protocol"}
MIDDLE = TRUNK | {"engines", "data", "report"}
SHELL = MIDDLE | {"host", "executors", "steps", "ledger", "planning", "runtime"}

# room -> the other rooms it may import from
MAY_IMPORT: dict[str, set[str]] = {
    "distribution": set(),
    "engine_info": {"distribution", "errors"},
    "errors": set(),
    "faults": set(),
    "file_names": set(),
    "formats": set(),
    "function_transfer": {"errors"},
    "redaction": set(),
    "terminal": set(),
    "units": set(),
    "version": set(),
    "spec": FOUNDATION,
    "core": FOUNDATION,
    "planner": FOUNDATION,
    "protocol": FOUNDATION,
    # A host under another interpreter has msgspec and its engine, nothing else; of the core it uses one module.
    "engines": FOUNDATION | {"core", "protocol"},
    "host": FOUNDATION | {"protocol", "engines"},
    "data": FOUNDATION | {"spec", "core", "protocol"},  # of protocol/: arrays, which rows hold
    "report": FOUNDATION | {"spec", "core", "planner"},
    "executors": FOUNDATION | {"protocol", "host"},
    "steps": FOUNDATION | {"spec", "protocol", "data"},
    "ledger": FOUNDATION | {"spec", "core", "data"},
    "planning": TRUNK | {"engines", "executors", "steps"},  # which devices there are, what a step needs
    "runtime": SHELL - {"runtime"},
    "sim": FOUNDATION | {"core"},
    "recipes": SHELL,
    "cli": SHELL | {"sim", "recipes", "penstock"},
    "testing": SHELL | {"sim", "recipes", "penstock"},
    "penstock": SHELL | {"sim", "recipes"},
}
# The doors from description to execution: Rows.run() and Rows.retry(). Nothing else of spec/ may look down.
DOORS = {("spec/rows.py", "penstock.runtime.run.api"), ("spec/rows.py", "penstock.runtime.retry.retry")}
# What engines/ uses of the core: decisions that the simulator drives as well.
OF_CORE_FOR_ENGINES = "penstock.core.service"
PARTS_OF_CORE = {"flow", "dispatch"}


def room_of(module: str) -> str | None:
    """The room of a dotted name: `spec` for penstock.spec.model, `penstock` for the public face, None outside."""
    parts = module.split(".")
    if parts[0] != "penstock":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "penstock"


def rooms_imported(item: Import) -> str | None:
    if item.module == "penstock" and item.name == "__version__":
        return None  # everyone may know the version
    return room_of(item.dotted)


def breaches(path: Path, room: str, found: Iterator[Import]) -> Iterator[Finding]:
    allowed = MAY_IMPORT[room] | {room}
    for item in found:
        target = rooms_imported(item)
        if (path.relative_to(PACKAGE).as_posix(), item.module) in DOORS:
            continue
        if room == "engines" and target == "core" and item.module != OF_CORE_FOR_ENGINES:
            yield Finding(path, item.line, f"engines/ imports {item.dotted}; of core/ it may use {OF_CORE_FOR_ENGINES}")
        if target is not None and target not in allowed:
            may = ", ".join(sorted(MAY_IMPORT[room])) or "no other room"
            yield Finding(path, item.line, f"{room}/ imports {item.dotted}; it may use {may}")


def own_room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return "penstock" if parts == ("__init__.py",) else Path(parts[0]).stem


def test_every_module_lies_in_a_known_room() -> None:
    strangers = [Finding(path, 1, "no such room") for path in python_files("src") if own_room(path) not in MAY_IMPORT]
    assert_none(strangers, "A new room needs a place among the layers: design/0001 and MAY_IMPORT.")


def test_imports_point_one_way() -> None:
    found = [
        finding
        for path in python_files("src")
        if own_room(path) in MAY_IMPORT
        for finding in breaches(path, own_room(path), imports(path))
    ]
    assert_none(
        found, "A room imports from its own and from those above it (design/0001); siblings do not know each other."
    )


def part_of_core(module: str) -> str | None:
    parts = module.split(".")
    return parts[2] if len(parts) > 2 and parts[:2] == ["penstock", "core"] else None


def test_parts_of_the_core_do_not_know_each_other() -> None:
    found = []
    wirings = {
        path.stem
        for path in (PACKAGE / "core").glob("*.py")
        if any(part_of_core(item.dotted) in PARTS_OF_CORE for item in imports(path))
    }
    for part in sorted(PARTS_OF_CORE):
        for path in python_files(f"src/penstock/core/{part}"):
            for item in imports(path):
                other = part_of_core(item.dotted)
                if other in (PARTS_OF_CORE | wirings) - {part}:
                    found.append(Finding(path, item.line, f"core/{part}/ imports {item.dotted}"))
    assert_none(found, "flow and dispatch share only what lies in core/ itself, and never what wires them.")


@pytest.mark.parametrize(
    ("room", "statement", "good"),
    [
        ("core", "from penstock.errors import InvariantError", True),
        ("core", "from penstock.spec.model import Model", False),
        ("spec", "import penstock.core.events", False),
        ("engines", "from penstock import __version__", True),
        ("engines", "from penstock import Model", False),
        ("engines", "from penstock.core.service import Reply", True),
        ("engines", "from penstock.core.core import Core", False),
        ("sim", "from penstock import runtime", False),
        ("report", "if TYPE_CHECKING:\n    from penstock.data.base import Row", False),
        ("ledger", "def f():\n    from penstock.data.base import Row", True),
    ],
)
def test_the_rule_tells_good_from_bad(room: str, statement: str, good: bool) -> None:
    import ast

    found = list(breaches(PACKAGE / room / "x.py", room, imports(PACKAGE / room / "x.py", ast.parse(statement))))
    assert (not found) is good
