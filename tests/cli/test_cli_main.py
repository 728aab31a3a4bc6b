"""Exit codes and messages of the command line, where no run is needed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.cli import main as cli
from penstock.cli.interrupted import without_debug
from penstock.cli.main import main
from penstock.errors import ConfigError, ExitCode, PenstockError


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_names_every_command_and_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, "--help")
    assert (code, err) == (0, "")
    for name, (_, help_text) in cli.COMMANDS.items():
        assert name in out
        assert help_text.split(",")[0] in out


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_each_command_has_help_of_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, command, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: penstock {command}" in out
    assert "--debug" in out


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from penstock.cli.main import main; main(['--help']);"
        "heavy = {'pydantic', 'pyarrow', 'torch', 'jinja2', 'psutil', 'yaml', 'penstock.cli.run'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["rnu"], 'Unknown command "rnu". Did you mean "run"?', "penstock --help"),
        (["run"], "requires an argument", "penstock run --help"),
        (["run", "x.yaml", "--dispaly", "none"], "Unknown option: --dispaly. Did you mean --display?", "run --help"),
        (["run", "x.yaml", "--display", "loud"], '"auto", "rich", "plain", "jsonl", "none"', "run --help"),
        (["run", "x.yaml", "--limit", "few"], 'unable to convert "few" into int', "run --help"),
        (["run", "x.yaml", "--limit", "0"], "Must be >= 1", "run --help"),
        (["run", "a.yaml", "b.yaml"], "b.yaml", "run --help"),
    ],
)
def test_usage_errors_are_one_message_and_code_2(
    argv: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("penstock: ")
    assert message in err
    assert hint in err
    assert "Traceback" not in err


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    class App:
        def __call__(self, *_: object, **__: object) -> int:
            raise error

    monkeypatch.setattr(cli, "build_app", lambda called: App())


def test_errors_carry_their_code_and_place(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(monkeypatch, ConfigError("unknown key 'promt'", where="pipeline.yaml:7"))
    assert told(capsys, "run") == (2, "", "penstock: pipeline.yaml:7: unknown key 'promt'\n")
    fail_with(monkeypatch, PenstockError("the disk is full"))
    assert told(capsys, "run") == (1, "", "penstock: the disk is full\n")


def test_several_errors_are_each_on_a_line_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, ConfigError("p.yaml:1: one\np.yaml:2: two"))
    assert told(capsys, "run")[2] == "penstock: p.yaml:1: one\npenstock: p.yaml:2: two\n"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(monkeypatch, ConfigError("unknown key"))
    code, _, err = told(capsys, "run", "x.yaml", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("penstock: unknown key\n")


@pytest.mark.parametrize(
    ("words", "rest", "debug"),
    [
        (["--debug", "run", "x"], ["run", "x"], True),
        (["run", "x", "--debug"], ["run", "x"], True),
        (["run", "x"], ["run", "x"], False),
        (["run", "--", "--debug"], ["run", "--", "--debug"], False),
        (["--debug", "run", "--", "--debug"], ["run", "--", "--debug"], True),
    ],
)
def test_debug_stands_anywhere_and_is_no_option_of_a_command(words: list[str], rest: list[str], debug: bool) -> None:
    assert without_debug(words) == (rest, debug)


def test_the_published_exit_codes_are_those_of_the_program() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == [str(int(code)) for code in ExitCode]


def test_an_unexpected_error_keeps_its_traceback_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, KeyError("lost"))
    code, _, err = told(capsys, "run", "x.yaml")
    assert code == 1
    assert err.startswith("penstock: unexpected error: KeyError: 'lost' (traceback in ")
    assert err.count("\n") == 1
    kept = Path(err.split("traceback in ")[1].split(";")[0])
    assert "KeyError: 'lost'" in kept.read_text()
    kept.unlink()


def test_ctrl_c_outside_a_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert told(capsys, "demo")[0] == 130


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m penstock.cli doctor | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["run", "preview"])
def test_pipeline_files_that_can_not_be_read(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline.yaml").write_text("")
    (tmp_path / "binary.yaml").write_bytes(b"a: \xff")
    code, out, err = told(capsys, command, "pipline.yaml")
    assert (code, out) == (2, "")
    assert err == f"penstock: pipline.yaml: no such pipeline file; {tmp_path} has binary.yaml, pipeline.yaml\n"
    assert told(capsys, command, ".")[2].startswith("penstock: .: is a folder; give the pipeline file itself")
    assert told(capsys, command, "binary.yaml")[2] == "penstock: binary.yaml: is not UTF-8 text (byte 3)\n"
    assert "there is no folder" in told(capsys, command, "nowhere/p.yaml")[2]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_pipeline_file_without_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("x: 1")
    file.chmod(0)
    code, _, err = told(capsys, "run", str(file))
    assert code == 2
    assert "can't be read by user" in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import penstock

    assert told(capsys, "--version")[1].strip() == penstock.__version__


def test_json_goes_to_stdout_alone() -> None:
    done = subprocess.run([sys.executable, "-m", "penstock.cli", "doctor", "--json"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["cores"] >= 1


def test_characters_that_stdout_lacks_are_escaped() -> None:
    script = "from penstock.cli import output; output.data('caf\\u00e9'); output.error('\\u2026')"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "caf\\xe9\n")


@pytest.mark.parametrize(("command", "code"), [("run", 75), ("retry", 75), ("plan", 130)])
def test_ctrl_c_within_an_exec_of_text(tmp_path: Path, command: str, code: int) -> None:
    """As the standard library does while dataclasses are imported: of a plain KeyboardInterrupt that passed through one
    `python -m` takes note, and ends by the signal, whatever the exit code is to be."""
    (tmp_path / "interrupted.py").write_text(
        "import signal, sys\nfrom penstock.cli import main\n"
        "def build_app(called):\n    exec('signal.raise_signal(signal.SIGINT)', {'signal': signal})\n"
        f"main.build_app = build_app\nsys.exit(main.main(['{command}', 'pipeline.yaml']))"
    )
    start = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert (done.returncode, "stopped" in done.stderr) == (code, True)


def test_a_library_that_makes_another_error_of_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As pydantic does where its schemas are built, while the command line is imported."""

    def build_app(called: str | None) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("the schema can't be built") from error

    monkeypatch.setattr(cli, "build_app", build_app)
    assert told(capsys, "plan", "pipeline.yaml") == (130, "", "penstock: stopped\n")


def test_a_signal_that_is_ignored_stays_ignored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a script that runs something in the background."""

    def build_app(called: str | None) -> None:
        signal.raise_signal(signal.SIGINT)
        raise ConfigError("read to its end")

    monkeypatch.setattr(cli, "build_app", build_app)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert told(capsys, "plan", "pipeline.yaml") == (2, "", "penstock: read to its end\n")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


_THREAD_OF_ARROW = """\
import io, sys, threading, time
import pyarrow as pa, pyarrow.parquet as pq
import penstock.cli.main as cli
from penstock.cli.entry import main

class Slow(io.BytesIO):
    def read(self, size=-1):
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            time.sleep(0.5)
        return super().read(size)

def command():
    file = io.BytesIO()
    pq.write_table(pa.table({'a': [1]}), file)
    rows = pq.ParquetFile(Slow(file.getvalue()), pre_buffer=True).iter_batches()
    threading.Thread(target=next, args=(rows,), daemon=True).start()
    begun.wait()
    print('done')
    return 7

begun = threading.Event()
cli.main = command
sys.exit(main())
"""


def test_a_thread_of_arrow_that_is_still_reading_does_not_end_the_process() -> None:
    """It would ask for the interpreter when that is being finalized, and end the process by SIGABRT, or hang."""
    done = subprocess.run([sys.executable, "-c", _THREAD_OF_ARROW], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout, done.stderr) == (7, "done\n", "")
