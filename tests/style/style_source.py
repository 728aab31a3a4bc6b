"""The source under inspection: files, parsed once, and findings that name file, line and rule."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "penstock"


class Finding(NamedTuple):
    """One breach of a rule. `line` counts from 1."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        place = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{place}:{self.line}: {self.message}"


class Import(NamedTuple):
    """One imported name: `module` is absolute, `name` is what is taken from it (None for `import module`)."""

    module: str
    name: str | None
    line: int

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


def assert_none(findings: Iterable[Finding], rule: str) -> None:
    """Fail with every finding, one a line, and the rule with its reason."""
    found = sorted(findings)
    assert not found, "\n".join([rule, *(f"  {finding}" for finding in found)])


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    """`penstock.core.events` for src/penstock/core/events.py; a package's own name for its __init__.py."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, tree: ast.Module | None = None) -> Iterator[Import]:
    """Everything the file imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree or parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(path, node)
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module_name(path).split(".")
    if path.stem != "__init__":
        package = package[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


@functools.cache
def tracked_files() -> list[Path]:
    """The files in version control; every file that is no build product where there is no repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode == 0:
        names = listed.stdout.decode().split("\0")
        return sorted(ROOT / name for name in names if name and (ROOT / name).is_file())
    skipped = {"__pycache__", "build", "dist", "out"}
    return sorted(
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not any(part in skipped or part.startswith(".") for part in path.relative_to(ROOT).parts)
    )
