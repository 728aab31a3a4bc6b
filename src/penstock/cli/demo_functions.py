"""The demo's data: functions of the installed Python packages that have no docstring.

What is taken: public functions and methods (no name on the way to them begins with an underscore) of modules and
classes, the standard library first, then other packages, each in the order of its files. Nothing is imported or run;
sources are only parsed.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

import msgspec

# Folders whose functions nobody documents, or that repeat another package.
_SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "turtledemo", "lib2to3"})
_MAX_SOURCE_BYTES = 2_000_000


class Function(msgspec.Struct, frozen=True):
    """One function. `signature` has names only: `def Queue.put(item, block, timeout)`; `line` counts from 1."""

    package: str
    module: str
    name: str
    signature: str
    line: int


def find_functions(limit: int, roots: list[Path] | None = None) -> Iterator[Function]:
    """At most `limit` functions without a docstring; `roots` default to the standard library, then site-packages."""
    if limit <= 0:
        return
    found = 0
    for root in roots if roots is not None else default_roots():
        for path in source_files(root):
            for function in undocumented(path, root):
                yield function
                found += 1
                if found == limit:
                    return


def default_roots() -> list[Path]:
    """The folders that hold the standard library and the installed packages, each once."""
    paths = sysconfig.get_paths()
    return [Path(path) for path in dict.fromkeys(paths[key] for key in ("stdlib", "purelib", "platlib"))]


def source_files(root: Path) -> Iterator[Path]:
    """The public modules below `root`: those of a folder by name, then those of its sub-folders."""
    try:
        entries = sorted(root.iterdir(), key=lambda entry: (entry.is_dir(), entry.name))
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("_") and entry.name != "__init__.py":
            continue
        if entry.is_dir():
            if entry.name not in _SKIPPED_FOLDERS and (entry / "__init__.py").exists():
                yield from source_files(entry)
        elif entry.suffix == ".py":
            yield entry


def undocumented(path: Path, root: Path) -> Iterator[Function]:
    """The public functions without a docstring in one file; none where it is no Python that this version parses."""
    tree = _parse(path)
    if tree is None:
        return
    parts = path.relative_to(root).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    seen: set[str] = set()
    for qualified, function in _functions(tree, ""):
        if ast.get_docstring(function) is None and qualified not in seen:
            seen.add(qualified)
            method = "." in qualified and not _is_static(function)
            signature = f"def {qualified}({', '.join(_parameters(function.args, method=method))})"
            yield Function(parts[0], module, qualified, signature, function.lineno)


def _parse(path: Path) -> ast.Module | None:
    try:
        if path.stat().st_size > _MAX_SOURCE_BYTES:
            return None
        with warnings.catch_warnings():
            # Other people's sources warn of their own escapes; that is not this program's business.
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _functions(
    node: ast.Module | ast.ClassDef, prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield prefix + child.name, child


def _is_static(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in function.decorator_list)


def _parameters(arguments: ast.arguments, *, method: bool) -> list[str]:
    names = [argument.arg for argument in arguments.posonlyargs + arguments.args][1 if method else 0 :]
    if arguments.vararg:
        names.append("*" + arguments.vararg.arg)
    names += [argument.arg for argument in arguments.kwonlyargs]
    if arguments.kwarg:
        names.append("**" + arguments.kwarg.arg)
    return names
