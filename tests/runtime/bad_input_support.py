"""Commands as a clumsy user gives them, and what every refusal has in common."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from command_server import run_command
from penstock.cli.main import main

TIME_LIMIT_S = 240.0
SHORT = '{"question": "q"}\n'
PIPELINE = """\
models:
  writer: {ref: "mock:test", replicas: 1}
source: {path: q.jsonl}
steps:
  - generate: {model: writer, prompt: "{{ question }}", output: answer, max_tokens: 3}
sink: {path: out}
"""


class Told(msgspec.Struct, frozen=True):
    code: int
    err: str

    def says(self, code: int, *words: str) -> None:
        """The exit code, and one message for people that holds all of the words."""
        assert self.code == code, self.err
        assert "Traceback" not in self.err and "unexpected error" not in self.err
        for word in words:
            assert word in self.err

    def refuses(self, *words: str) -> None:
        """Code 2, before anything began: the message is all there is."""
        self.says(2, *words)
        assert all(line.startswith("penstock: ") for line in self.err.splitlines()), self.err


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def questions(count: int) -> str:
    return lines(*({"question": f"q{number}"} for number in range(count)))


def write(folder: Path, pipeline: str = PIPELINE, source: str | bytes | None = None, name: str = "q.jsonl") -> Path:
    """p.yaml, and its input (20 rows, unless given) under `name`; where `name` is "" there is no input."""
    (folder / "p.yaml").write_text(pipeline, encoding="utf-8")
    if name:
        content = questions(20) if source is None else source
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def with_steps(*steps: dict[str, Any], **top: Any) -> str:
    """The pipeline with other steps, and with further keys."""
    return yaml.safe_dump({**yaml.safe_load(PIPELINE), "steps": list(steps), **top}, sort_keys=False)


def with_model(**keys: Any) -> str:
    return yaml.safe_dump({**yaml.safe_load(PIPELINE), "models": {"writer": keys}}, sort_keys=False)


def started(folder: Path, *arguments: str, prefix: Sequence[str] = (), **options: Any) -> Told:
    """`penstock ARGUMENTS` as a process of its own, to its end; `prefix` is a command that starts it."""
    if not prefix and not options:
        ended = run_command(*arguments, folder=folder, limit_s=TIME_LIMIT_S)
        return Told(ended.returncode, ended.stderr)
    command = [*prefix, sys.executable, "-m", "penstock.cli", *arguments]
    options = {"cwd": folder, "stdin": subprocess.DEVNULL, "timeout": TIME_LIMIT_S, **options}
    done = subprocess.run(command, capture_output=True, text=True, **options)
    return Told(done.returncode, done.stderr)


def run(folder: Path, *arguments: str, **options: Any) -> Told:
    """`penstock run p.yaml` as a process of its own; closing lines only where it got that far."""
    return started(folder, "run", "p.yaml", "--display", "plain", *arguments, **options)


class Here:
    """`penstock run` in this very process, for what is refused before anything begins."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [*sys.path])

    def run(self, *arguments: str) -> Told:
        self._capsys.readouterr()
        code = main(["run", "p.yaml", *arguments])
        return Told(code, self._capsys.readouterr().err)


def model_folder(folder: Path) -> Path:
    """A small model as far as a plan looks: a configuration, and an index that tells the size of its weights."""
    folder.mkdir()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"model_type": "llama", "vocab_size": 512, "max_position_embeddings": 512, "dtype": "float32", **sizes}
    (folder / "config.json").write_text(json.dumps(config))
    index = {"metadata": {"total_size": 600_000}, "weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
