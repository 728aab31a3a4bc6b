"""The demo's data and files; the demo itself runs in test_cli_run.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.cli import demo as demo_command
from penstock.cli.demo import closing, packaged_model
from penstock.cli.demo_functions import default_roots, find_functions, undocumented
from penstock.cli.demo_pipeline import DemoFiles, pipeline_text, source_text, write_files
from penstock.cli.main import main
from penstock.distribution import install_command
from penstock.errors import UsageError

SOURCE = '''
"""A module."""
def plain(path, mode="r", *rest, key, **more): return 1
def documented():
    """Has one."""
async def waits(x, /, y): ...
def _private(): ...
class Queue:
    def qsize(self): ...
    @staticmethod
    def of(items): ...
    @classmethod
    def empty(cls): ...
    def __len__(self): ...
    @property
    def size(self): ...
    @size.setter
    def size(self, value): ...
    class Inner:
        def deep(self, a): ...
class _Hidden:
    def seen(self): ...
def outer():
    def inner(): ...
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    package = tmp_path / "lib" / "queues"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("def top(): ...")
    (package / "core.py").write_text(SOURCE)
    (package / "broken.py").write_text("def broken(:")
    (package / "nul.py").write_bytes(b"x = '\x00'")
    (package / "_private.py").write_text("def hidden(): ...")
    (package / "tests").mkdir()
    (package / "tests" / "__init__.py").write_text("def test_it(): ...")
    (package / "escapes.py").write_text("x = '\\d'\ndef after(): ...")
    return tmp_path / "lib"


def test_public_functions_without_docstring(library: Path) -> None:
    found = list(undocumented(library / "queues" / "core.py", library))
    assert [function.signature for function in found] == [
        "def plain(path, mode, *rest, key, **more)",
        "def waits(x, y)",
        "def Queue.qsize()",
        "def Queue.of(items)",
        "def Queue.empty()",
        "def Queue.size()",
        "def Queue.Inner.deep(a)",
        "def outer()",
    ]
    assert (found[0].package, found[0].module, found[0].name, found[0].line) == ("queues", "queues.core", "plain", 3)


def test_files_that_are_no_python_are_passed_over(library: Path) -> None:
    modules = [function.module for function in find_functions(100, [library])]
    assert modules[0] == "queues"
    assert set(modules) == {"queues", "queues.core", "queues.escapes"}


def test_the_search_stops_at_its_limit(library: Path) -> None:
    assert len(list(find_functions(3, [library]))) == 3
    assert list(find_functions(0, [library])) == []
    assert list(find_functions(5, [library / "nowhere"])) == []


def test_the_standard_library_comes_first() -> None:
    first = next(iter(find_functions(1)))
    assert (default_roots()[0] / f"{first.package}.py").exists() or (default_roots()[0] / first.package).is_dir()


def test_files_are_written_once_and_never_over_another_demo(library: Path, tmp_path: Path) -> None:
    files = DemoFiles(tmp_path / "demo")
    source = source_text(find_functions(5, [library]))
    pipeline = pipeline_text(files, model="mock:writer", engine="mock", replicas=2)
    write_files(files, source, pipeline)
    assert next(json.loads(line)["module"] for line in files.source.read_text().splitlines()) == "queues"
    write_files(files, source, pipeline.replace("48", "64"))  # nothing has run yet
    assert "max_tokens: 64" in files.pipeline.read_text()
    files.run.mkdir()
    with pytest.raises(
        UsageError, match=r"contains a demo with another pipeline\.yaml; choose another folder with --out"
    ):
        write_files(files, source, pipeline)


def test_the_pipeline_file_is_one_that_loads(tmp_path: Path) -> None:
    from penstock.spec.load import load_pipeline

    files = DemoFiles(tmp_path / 'a "quoted" folder: {{ x }}')
    pipeline = load_pipeline(pipeline_text(files, model="mock:w", engine="mock", replicas=2), "pipeline.yaml")
    assert pipeline.sink.path == str(files.run)
    assert pipeline.models["writer"].replicas == 2


def test_the_model_ships_with_the_package() -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in packaged_model().iterdir()}


def test_without_the_engine_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from penstock import engine_info

    monkeypatch.setattr(engine_info, "is_installed", lambda info: False)
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 2
    assert install_command("transformers") in capsys.readouterr().err
    assert not out.exists()


def test_the_closing_shows_rows_at_even_distance() -> None:
    rows = [{"module": "m", "signature": f"def f{i}()", "docstring": f" Does {i}. "} for i in range(20)]
    text = closing(DemoFiles(Path("d")), rows, packaged=True, again="penstock run d/pipeline.yaml")
    assert "8 of 20 rows (unedited):\n  m: def f0()\n      Does 0.\n  m: def f2()" in text
    assert "5.5M-parameter" in text
    assert "head d/run/data/part-00000.jsonl" in text
    assert "docwriter" not in closing(DemoFiles(Path("d")), rows[:1], packaged=False, again="x")
    assert demo_command._SHOWN_ROWS == 8
