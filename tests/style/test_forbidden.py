"""Nothing is unpickled or evaluated, and nothing of one machine stands in a tracked file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from style_source import PACKAGE, Finding, assert_none, imports, parse, python_files, tracked_files

CODE_CARRIERS = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "jsonpickle"}
# These pickle what passes through them. A resource tracker or a start method is no channel.
PICKLING_CHANNELS = {
    "multiprocessing.Pool",
    "multiprocessing.Queue",
    "multiprocessing.Pipe",
    "multiprocessing.Manager",
    "multiprocessing.connection",
    "multiprocessing.managers",
    "multiprocessing.queues",
    "concurrent.futures.ProcessPoolExecutor",
}
# Functions that a worker can't import: from the parent process, through a file in memory that only it can write.
UNPICKLES = PACKAGE / "function_transfer.py"
EVALUATORS = {"eval", "exec"}
UNSAFE_LOADS = {
    ("torch", "load"),
    ("torch", "save"),
    ("yaml", "load"),
    ("yaml", "load_all"),
    ("yaml", "unsafe_load"),
    ("yaml", "full_load"),
}


def forbidden_imports(path: Path, tree: ast.Module) -> Iterator[Finding]:
    for item in imports(path, tree):
        if item.module.split(".")[0] in CODE_CARRIERS and path != UNPICKLES:
            yield Finding(path, item.line, f"imports {item.dotted}")
        elif item.dotted in PICKLING_CHANNELS or item.module in PICKLING_CHANNELS:
            yield Finding(path, item.line, f"{item.dotted} pickles what passes through it")


def forbidden_calls(path: Path, tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id in EVALUATORS:
            yield Finding(path, node.lineno, f"calls {function.id}()")
        if isinstance(function, ast.Attribute) and (ast.unparse(function.value), function.attr) in UNSAFE_LOADS:
            yield Finding(path, node.lineno, f"calls {ast.unparse(function)}()")
        if any(keyword.arg == "allow_pickle" and not _is_false(keyword.value) for keyword in node.keywords):
            yield Finding(path, node.lineno, "allow_pickle")


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def test_nothing_is_unpickled_or_evaluated() -> None:
    found = []
    for path in python_files("src", "tests", "bench", "examples"):
        found += [*forbidden_imports(path, parse(path)), *forbidden_calls(path, parse(path))]
    assert_none(
        found, "What is read from a socket or a file is data: msgspec, json, safetensors or Arrow; YAML by safe_load."
    )


@pytest.mark.parametrize(
    ("code", "breaches"),
    [
        ("import pickle", 1),
        ("from dill import loads", 1),
        ("def f():\n    import cloudpickle as c", 1),
        ("from multiprocessing import Queue", 1),
        ("from multiprocessing import get_start_method", 0),
        ("torch.load('x')", 1),
        ("model.eval()", 0),
        ("eval('1')", 1),
        ("yaml.safe_load('x')", 0),
        ("np.load('x', allow_pickle=True)", 1),
        ("np.load('x', allow_pickle=False)", 0),
    ],
)
def test_the_rule_tells_good_from_bad(code: str, breaches: int) -> None:
    tree, path = ast.parse(code), PACKAGE / "x.py"
    assert len([*forbidden_imports(path, tree), *forbidden_calls(path, tree)]) == breaches


def words(*parts: str) -> str:
    """A pattern from its parts, so that this file does not hold what it forbids."""
    return re.escape("".join(parts))


TOP_LEVEL = r"(?<![\w.~}\-/\])])"  # the path begins here: it is no tail of another
MACHINE_PATHS = re.compile(
    TOP_LEVEL
    + "(?:"
    + "|".join(
        [
            words("/wo", "rk/"),
            words("/ro", "ot/"),
            words("/ho", "me/") + r"\w",
            words("/tmp", "/envs"),
            words("/Us", "ers/"),
        ]
    )
    + ")"
)
REGISTRY_HOSTS = re.compile(
    "|".join(
        [
            words("py", "pi.org"),
            words("python", "hosted.org"),
            words("download.py", "torch.org"),
            words("registry.npm", "js.org"),
            words("conda.ana", "conda.org"),
            words("proxy.go", "lang.org"),
            words("index.cra", "tes.io"),
        ]
    ),
    re.IGNORECASE,
)
FORBIDDEN_TEXT = {"a path of one machine": MACHINE_PATHS, "a package registry's host": REGISTRY_HOSTS}


def text_findings(path: Path, text: str) -> Iterator[Finding]:
    for what, pattern in FORBIDDEN_TEXT.items():
        for match in pattern.finditer(text):
            yield Finding(path, text.count("\n", 0, match.start()) + 1, f"{what}: {match.group()}")


def test_tracked_text_names_no_machine_and_no_registry() -> None:
    found = []
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" not in data[:8192]:
            found += text_findings(path, data.decode("utf-8", errors="replace"))
    assert_none(found, "A clone must work anywhere: no paths of one machine, no addresses of registries.")


@pytest.mark.parametrize(
    ("text", "breaches"),
    [
        ("cd /wo" + "rk/main", 1),
        ("https://example.org/wo" + "rk/main", 0),
        ("out/wo" + "rk/x", 0),
        ("pip --index-url https://py" + "pi.org/simple", 1),
        ("see /ho" + "me/ for more", 0),
    ],
)
def test_the_patterns_tell_good_from_bad(text: str, breaches: int) -> None:
    assert len(list(text_findings(Path("x"), text))) == breaches
