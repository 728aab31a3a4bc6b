"""What ARCHITECTURE.md says of adding things, done: each addition is made in a copy of the package, run there, and the
files that it took are counted against the table "Where to add things"."""

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

from penstock.protocol.messages import Request
from penstock.steps.base import Columns


class UpperLogic:
    pool = None
    columns = None

    def __init__(self, step):
        self._step = step

    def render(self, row):
        return Request({})

    def apply(self, row, answer):
        return Columns({**row, self._step.output: row[self._step.column].upper()})
''',
        "steps/registry.py": (
            Edit(
                "# The step, and what it has",
                "from penstock.spec.steps import Upper\nfrom penstock.steps.upper import UpperLogic\n\n",
            ),
            Edit("    Expand: expand_logic,", "    Upper: lambda step, context: UpperLogic(step),\n"),
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

ENGINE = Addition(
    "an engine",
    {
        "engines/echo/info.py": '''"""The record of an engine that repeats its prompt."""

from penstock.engine_info import EngineInfo

INFO = EngineInfo(
    name="echo",
    adapter="penstock.engines.echo.engine:EchoEngine",
    ref_prefix="echo:",
    slots=3,
    slots_option="slots",
)
''',
        "engines/echo/engine.py": '''"""echo: the last words of the prompt, one token a word."""

from penstock.engines.base import EngineLoadError
from penstock.protocol.messages import Answer, Capacity, Output
from penstock.protocol.payloads import texts_in


class EchoEngine:
    def load(self, config, emit, note):
        if config.ref == "echo:broken":
            raise EngineLoadError("it is broken", "bad_model")
        self._emit, self._answered = emit, 0
        return Capacity(slots=config.engine_options.get("slots", 3))

    def submit(self, requests):
        answers = [_answer(each, each.sampling) for each in requests]
        self._answered += len(answers)
        self._emit(answers)

    def abort(self, ids):
        pass  # each request is answered before `submit` returns

    def progress(self):
        return self._answered

    def close(self):
        pass


def _answer(request, sampling):
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        return Answer(request.id, request.attempt, code="refused", message="max_tokens must be at least 1")
    prompt = " ".join(texts_in(request.payload))
    words = prompt.split()[: sampling.max_tokens]
    outputs = [Output(" ".join(words) + "!" * turn, "stop", len(words)) for turn in range(sampling.n)]
    return Answer(request.id, request.attempt, outputs=outputs, tokens_in=len(prompt.split()))
''',
    },
    """
open("test_echo.py", "w").write('''
from penstock.protocol.messages import EngineConfig
from penstock.testing.engines import EngineConformance

class TestEcho(EngineConformance):
    config = EngineConfig("echo", "echo:x")
    bad_config = EngineConfig("echo", "echo:broken")
    has_logprobs = False
''')
import pytest
assert pytest.main(["-q", "-n", "0", "-p", "no:cacheprovider", "test_echo.py"]) == 0

import penstock as ps
from penstock.planning.plan import plan
open("in.jsonl", "w").write('{"word": "one"}\\n{"word": "two"}\\n')
rows = ps.read("in.jsonl").generate(ps.Model("echo:x", replicas=2, name="m"), prompt="say {{ word }}", output="said")
asked = rows.write("out").to_pipeline()
planned = plan(asked).models["m"]
assert (planned.engine, len(planned.replicas), planned.replicas[0].max_num_seqs) == ("echo", 2, 3), planned
assert ps.run(asked, ps.RunOptions(display="none")).exit_code == 0
import pyarrow.parquet as pq
assert pq.read_table("out/data").column("said").to_pylist() == ["say one", "say two"]
""",
)

COMMAND = Addition(
    "a command",
    {
        "cli/hello.py": '''"""`penstock hello`: a greeting."""

from penstock.cli import output


def hello(name: str, /) -> int:
    """Greet somebody."""
    output.data(f"hello {name}")
    return 0
''',
        "cli/main.py": (Edit('    "demo": (', '    "hello": ("penstock.cli.hello:hello", "Greet somebody."),\n'),),
    },
    """
import subprocess, sys
def answer(*words):
    return subprocess.run([sys.executable, "-m", "penstock.cli", *words], capture_output=True, text=True)
assert answer("hello", "you").stdout == "hello you\\n"
assert "Greet somebody." in answer("--help").stdout
assert answer("hello").returncode == 2
""",
)

SOURCE_FORMAT = Addition(
    "a source format",
    {
        "data/paragraphs.py": '''"""Texts as a source: a row for each paragraph."""

from penstock.data.lists import ListSource


def open_paragraphs(files, every, given):
    texts = [file.path.read_text(encoding="utf-8") for file in files]
    return ListSource([{"text": part} for text in texts for part in text.strip().split("\\n\\n")])
''',
        "formats.py": (
            Edit(
                '        FormatInfo("csv"',
                '        FormatInfo("paragraphs", (".txt",), reader="penstock.data.paragraphs:open_paragraphs"),\n',
            ),
        ),
    },
    """
import penstock as ps
import pyarrow.parquet as pq
from penstock.spec.load import load_pipeline

open("in.txt", "w").write("one\\n\\ntwo\\n")
for form in ("auto", "paragraphs"):
    file = "source: {path: in.txt, format: %s}\\nsteps:\\n  - filter: {expr: text}\\nsink: out-%s\\n" % (form, form)
    assert ps.run(load_pipeline(file, "p.yaml"), ps.RunOptions(display="none")).exit_code == 0
    assert pq.read_table("out-" + form + "/data").to_pylist() == [{"text": "one"}, {"text": "two"}]
""",
)

SINK_FORMAT = Addition(
    "a sink format",
    {
        "data/csv_parts.py": '''"""Parts as CSV."""

import pyarrow as pa
from pyarrow import csv

from penstock.data.parts import FormatWriter


def csv_writer():
    def merge(part, rows, stream):
        csv.write_csv(rows.into(csv.read_csv(part)), stream)

    def join(parts, stream):
        csv.write_csv(pa.concat_tables([csv.read_csv(part) for part in parts]), stream)

    return FormatWriter(".csv", csv.write_csv, merge, join)
''',
        "formats.py": (Edit('reader="penstock.data.csvs:open_csv"', 'writer="penstock.data.csv_parts:csv_writer", '),),
    },
    """
import penstock as ps

rows = ps.read([{"id": 1, "word": "one"}, {"id": 2, "word": "two"}]).filter("id > 0").write("out", format="csv")
assert rows.run(display="none").exit_code == 0
assert open("out/data/part-00000.csv").read() == '"id","word"\\n1,"one"\\n2,"two"\\n'
""",
)

ADDITIONS = (STEP, ENGINE, SOURCE_FORMAT, SINK_FORMAT, COMMAND)


def files_in_table() -> dict[str, int]:
    """Per row of the table: how many files it says that the addition takes."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## Where to add things")[2]
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
    assert done.returncode == 0, done.stdout + done.stderr


def apply(path: Path, change: str | tuple[Edit, ...]) -> None:
    if isinstance(change, str):
        assert not path.exists(), f"{path.name} is there already"
        path.parent.mkdir(exist_ok=True)
        path.write_text(change, encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    for edit in change:
        assert edit.anchor in text, f"{path.name} has no {edit.anchor!r}"
        text = text.replace(edit.anchor, edit.text + edit.anchor, 1)
    path.write_text(text, encoding="utf-8")
