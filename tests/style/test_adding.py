"""What ARCHITECTURE.md says of adding things, done: each addition is made in a copy of the package, run there, and the
files that it took are counted against the table "Where to add a thing"."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from style_source import PACKAGE, ROOT

TIMEOUT_S = 120


class Edit(NamedTuple):
    """Put `text` in front of the first place where `anchor` stands."""

    anchor: str
    text: str


class Addition(NamedTuple):
    """what: its row in the table. files: path below src/penstock -> the text of a new file, or edits of one that is
    there. script: run with the changed package in an empty folder; it asserts what was added works."""

    what: str
    files: dict[str, str | tuple[Edit, ...]]
    script: str


STEP = Addition(
    "a kind of step",
    {
        "spec/steps.py": (
            Edit(
                "STEP_KINDS:",
                '''class Upper(Step):
    """The text of `column` in capitals, as `output`."""

    kind: ClassVar[str] = "upper"
    column: Name
    output: Name

    def added_columns(self) -> Mapping[str, str]:
        return {self.output: "output"}

    def used_columns(self) -> Used:
        yield ("column",), frozenset({self.column})


''',
            ),
            Edit("Embed, Join)}", "Upper, "),
        ),
        "steps/upper.py": '''"""upper: a text in capitals."""

from penstock.steps.base import Asked, Columns


class UpperLogic:
    pool = None
    columns = None

    def __init__(self, step):
        self._step = step

    def render(self, row):
        return Asked(None)

    def apply(self, row, answer):
        return Columns({**row, self._step.output: row[self._step.column].upper()})
''',
        "steps/registry.py": (
            Edit(
                "# The step, and the columns",
                "from penstock.spec.steps import Upper\nfrom penstock.steps.upper import UpperLogic\n\n",
            ),
            Edit("    Expand: expand_logic,", "    Upper: lambda step, source: UpperLogic(step),\n"),
        ),
        "__init__.py": (Edit('"Map"),\n}', '"Upper", '),),
    },
    """
import penstock as ps
from penstock.errors import ConfigError
from penstock.spec.load import load_pipeline

file = "source: in.jsonl\\nsteps:\\n  - upper: {column: word, output: loud}\\nsink: out\\n"
open("in.jsonl", "w").write('{"word": "one"}\\n{"word": "two"}\\n')
by_python = ps.read("in.jsonl").then(ps.Upper(column="word", output="loud")).write("out")
assert load_pipeline(file, "p.yaml") == by_python.to_pipeline()
result = ps.run(by_python.to_pipeline(), ps.RunOptions(display="none"))
assert result.exit_code == 0, result.summary
import pyarrow.parquet as pq
assert pq.read_table("out/data").to_pylist() == [{"word": "one", "loud": "ONE"}, {"word": "two", "loud": "TWO"}]
try:
    ps.run(load_pipeline(file.replace("word", "wrod"), "p.yaml"), ps.RunOptions(out="other", display="none"))
except ConfigError as error:
    assert "p.yaml:3: 'column' names column 'wrod'" in str(error), error
else:
    raise AssertionError("a column that is not there was accepted")
""",
)

ADDITIONS = (STEP,)


def files_in_table() -> dict[str, int]:
    """Per row of the table: how many files it says that the addition takes."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## Where to add a thing")[2]
    return {what: int(count) for what, count in re.findall(r"^\| ([^|]+?) \| (\d+) \|", text, re.MULTILINE)}


@pytest.mark.parametrize("addition", ADDITIONS, ids=lambda addition: addition.what.replace(" ", "-"))
def test_the_table_counts_the_files(addition: Addition) -> None:
    assert len(addition.files) == files_in_table()[addition.what]


@pytest.mark.process
@pytest.mark.parametrize("addition", ADDITIONS, ids=lambda addition: addition.what.replace(" ", "-"))
def test_it_works_with_no_other_change(addition: Addition, tmp_path: Path) -> None:
    package, work = tmp_path / "src" / "penstock", tmp_path / "work"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    work.mkdir()
    for name, change in addition.files.items():
        apply(package / name, change)
    done = subprocess.run(
        [sys.executable, "-c", addition.script],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr


def apply(path: Path, change: str | tuple[Edit, ...]) -> None:
    if isinstance(change, str):
        assert not path.exists(), f"{path.name} is there already"
        path.write_text(change, encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    for edit in change:
        assert edit.anchor in text, f"{path.name} has no {edit.anchor!r}"
        text = text.replace(edit.anchor, edit.text + edit.anchor, 1)
    path.write_text(text, encoding="utf-8")
