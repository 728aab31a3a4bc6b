"""Words that the documentation of this field does not use, and the words to use in their place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from style_source import ROOT, Finding, assert_none, parse, python_files

# pattern -> what to write. To ban a word, add a line here. A name in backticks in a document counts as text too.
BANNED = {
    r"mend(s|ed|ing)?": "fix",
    r"anew": "restart, rebuild, again",
    r"told|tell(s|ing)? of": "message, label, describe(); reported, shown",
    r"whoever|whomever": "the process, caller or reader that is meant",
    r"of its like|its like": "peers",
    r"PARTING_S": "SHUTDOWN_TIMEOUT_S",
    r"go(es)? on|went on|going on|gone on": "continue",
    r"in good order": "cleanly",
    r"come(s)? to its end|came to its end": "finish",
    r"sign of life": "heartbeat",
    r"bring (it|that|them) back": "restore",
    r"can(no|')t be meant": "invalid",
    r"begin(s)? anew": "start over",
    r"bur(y|ied)": "record as dead",
    r"(is|are|was|were) no (valid )?(JSON|Parquet|HTTP|URL|gzip|UTF-8)": "is not",
}
WORD = re.compile(
    "|".join(rf"(?P<w{number}>(?<![a-z]){pattern}(?![a-z]))" for number, pattern in enumerate(BANNED)), re.I
)
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    *sorted(str(path.relative_to(ROOT)) for folder in ("docs", "design") for path in (ROOT / folder).glob("*.md")),
)
TEST_NAME = re.compile(r"`[^`]*\btest_\w+`")  # the name of a test; it is checked by test_docs_name_tests.py


def found_in(path: Path, text: str, line: int = 1) -> Iterator[Finding]:
    for match in WORD.finditer(text):
        number = int((match.lastgroup or "w0")[1:])
        instead = list(BANNED.values())[number]
        yield Finding(path, line + text.count("\n", 0, match.start()), f"{match.group()!r}; write {instead}")


def strings(tree: ast.Module) -> Iterator[ast.Constant]:
    """The string literals of a file, without docstrings."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node


def test_the_source_has_none_of_these_words() -> None:
    """In names, comments, docstrings and messages."""
    files = python_files("src", "examples", "bench")
    assert_none([each for path in files for each in found_in(path, path.read_text(encoding="utf-8"))], "Plain English.")


def test_the_documents_have_none_of_these_words() -> None:
    found = []
    for name in DOCUMENTS:
        text = TEST_NAME.sub(lambda match: "`" + " " * (len(match.group()) - 2) + "`", (ROOT / name).read_text("utf-8"))
        found += found_in(ROOT / name, text)
    assert_none(found, "Plain English.")


def test_the_messages_that_tests_compare_have_none_of_these_words() -> None:
    found = []
    for path in python_files("tests"):
        if path != Path(__file__):
            for node in strings(parse(path)):
                found += found_in(path, node.value, node.lineno)
    assert_none(found, "Plain English.")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("the run goes on", 1),
        ("the run continues", 0),
        ("raise Error(f'{x}. {mend}')", 1),
        ("recommended, a category", 0),
        ("_told = 1", 1),
        ("throughput is 20% of that of its like", 1),
    ],
)
def test_the_rule_tells_good_from_bad(text: str, count: int) -> None:
    assert len(list(found_in(Path("x"), text))) == count
