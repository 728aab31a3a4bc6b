"""The core is pure: decisions over plain data, so that one seed replays them anywhere.

No clock, randomness, I/O, logging or threads (by a list of what may be imported), no state outside the two machines,
and no iteration over a set: its order may differ from one process to the next.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from style_sets import name_of, ordered_uses, set_attributes
from style_source import PACKAGE, Finding, assert_none, imports, parse, python_files

MAY_IMPORT = {
    "__future__",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",  # the same in every process, unlike hash()
    "heapq",
    "itertools",
    "math",
    "msgspec",
    "operator",
    "typing",
}
MAY_IMPORT_OF_PENSTOCK = ("penstock.core", "penstock.errors")
NO_CALLS = {"print", "open", "input", "id", "hash", "globals", "breakpoint"}  # hash() of text differs by process
CACHES = {"cache", "lru_cache", "cached_property"}  # state that no checker sees
MUTATORS = {"append", "extend", "add", "update", "insert", "pop", "popitem", "remove", "clear", "setdefault", "discard"}
CORE = python_files("src/penstock/core")


def impure_imports(path: Path, tree: ast.Module) -> Iterator[Finding]:
    for item in imports(path, tree):
        if item.module.split(".")[0] == "penstock":
            pure = item.dotted.startswith(MAY_IMPORT_OF_PENSTOCK)
        else:
            pure = item.module.split(".")[0] in MAY_IMPORT and item.name not in CACHES
        if not pure:
            yield Finding(path, item.line, f"imports {item.dotted}")


def impure_calls(path: Path, tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NO_CALLS:
            yield Finding(path, node.lineno, f"calls {node.func.id}()")
        if isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith):
            yield Finding(path, node.lineno, "is asynchronous")


def set_iterations(path: Path, tree: ast.Module) -> Iterator[Finding]:
    attributes = set_attributes([tree, *(parse(other) for other in CORE)])
    for line, expression in ordered_uses(tree, attributes):
        yield Finding(path, line, f"order of a set decides: {expression}")


def is_mutable(node: ast.expr | None) -> bool:
    if isinstance(node, ast.Call):
        return name_of(node.func) in {"list", "dict", "set", "defaultdict", "deque", "Counter", "count", "OrderedDict"}
    return isinstance(node, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


def module_level_names(tree: ast.Module) -> Iterator[tuple[str, ast.expr | None, int]]:
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value, node.lineno
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.value, node.lineno


def global_state(path: Path, tree: ast.Module) -> Iterator[Finding]:
    names = set()
    for name, value, line in module_level_names(tree):
        names.add(name)
        if is_mutable(value) and not name.isupper() and name != "__all__":
            yield Finding(path, line, f"{name}: mutable at module level; tables are UPPER_CASE, state is a machine's")
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield Finding(path, node.lineno, f"global {', '.join(node.names)}")
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            if isinstance(node.value, ast.Name) and node.value.id in names and node.value.id.isupper():
                yield Finding(path, node.lineno, f"changes the table {node.value.id}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id in names and owner.id.isupper():
                yield Finding(path, node.lineno, f"changes the table {owner.id}")


RULES = {
    "imports": (impure_imports, "The core imports plain data structures and nothing that acts."),
    "calls": (impure_calls, "The core acts on nothing: it returns instructions."),
    "sets": (set_iterations, "No order of a set may decide: iterate over a list, a dict or sorted()."),
    "globals": (global_state, "State lies in Flow and Dispatch, where checkers see it."),
}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_core_is_pure(rule: str) -> None:
    check, reason = RULES[rule]
    assert CORE, f"no files under {PACKAGE / 'core'}"
    assert_none((finding for path in CORE for finding in check(path, parse(path))), reason)


@pytest.mark.parametrize(
    ("rule", "code", "breaches"),
    [
        ("imports", "import time", 1),
        ("imports", "def f():\n    from random import random", 1),
        ("imports", "from collections.abc import Sequence\nimport msgspec\nfrom penstock.core import events", 0),
        ("imports", "from penstock.spec.model import Model", 1),
        ("imports", "from functools import lru_cache", 1),
        ("calls", "print(1)", 1),
        ("calls", "async def f(): ...", 1),
        ("sets", "for x in {1, 2}: ...", 1),
        ("sets", "s: set[int]\nfor x in s: ...", 1),
        ("sets", "s: set[int]\nfor x in sorted(s): ...", 0),
        ("sets", "class A:\n    def f(self):\n        self.s = set()\n        return [x for x in self.s]", 1),
        ("sets", "def f(s: frozenset[int]): return list(s)", 1),
        ("sets", "def f(s: set[int]): return s.pop()", 1),
        ("sets", "def f(s: set[int]): return any(x > 1 for x in s), 3 in s, len(s)", 0),
        ("sets", "def f(a: set[int], b): return tuple(a - b)", 1),
        ("globals", "seen = []", 1),
        ("globals", "TABLE = {}\ndef f(): TABLE[1] = 2", 1),
        ("globals", "TABLE = {}\ndef f(): TABLE.update(a=1)", 1),
        ("globals", "TABLE = {1: 2}\ndef f(): return TABLE[1]", 0),
        ("globals", "n = 0\ndef f():\n    global n", 1),
    ],
)
def test_the_rules_tell_good_from_bad(rule: str, code: str, breaches: int) -> None:
    found = list(RULES[rule][0](PACKAGE / "core" / "x.py", ast.parse(code)))
    assert len(found) == breaches, [str(finding) for finding in found]
