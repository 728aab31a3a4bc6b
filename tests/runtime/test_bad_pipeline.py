"""Pipeline files, settings and engines that can't be meant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bad_input_support as support
import pytest
from bad_input_support import PIPELINE, Here, with_model, with_steps, write
from run_support import summary

from penstock.distribution import install_command

# ---------------------------------------------------------------- the pipeline file


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("sink:", "snik:", "p.yaml:6: unknown key 'snik'; did you mean 'sink'?"),
        ("replicas: 1", "replica: 1", "p.yaml:2: unknown key 'replica' in model; did you mean 'replicas'?"),
        ("max_tokens", "max_token", "p.yaml:5: unknown key 'max_token' in generate; did you mean 'max_tokens'?"),
        ("- generate", "- genrate", "p.yaml:5: unknown step 'genrate'; did you mean 'generate'?"),
        ("model: writer", "model: wirter", "p.yaml:5: 'model': no model is named 'wirter'; did you mean 'writer'?"),
        ("replicas: 1", "engine: vlm", "p.yaml:2: 'engine': unknown value 'vlm'; did you mean 'vllm'?"),
        ("replicas: 1", "device: 'cuda:7'", "p.yaml:2: unknown key 'device' in model"),
        ("replicas: 1", "replicas: many", "p.yaml:2: 'replicas': expected a whole number of at least 1 or 'auto'"),
        ("replicas: 1", "replicas: 100000000", "p.yaml:2: 'replicas': 100,000,000 processes on one machine"),
        ("max_tokens: 3", "max_tokens: some", "p.yaml:5: 'max_tokens': expected a whole number of at least 1"),
        ("max_tokens: 3", "max_tokens: 1" + "0" * 30, "'max_tokens': expected a whole number of at least 1"),
        ("max_tokens: 3", "temperature: -1", "p.yaml:5: 'temperature': expected a number of at least 0, got -1"),
        ("{{ question }}", "{{ question ", "p.yaml:5: 'prompt': not a valid template"),
        ("{path: out}", "!!python/object/apply:os.system ['false']", "p.yaml:6: unsafe tag '!!python/object/apply"),
        ('"{{ question }}"', "!include x", "p.yaml:5: unsafe tag '!include'; a pipeline file holds plain data only"),
        (
            "output: answer",
            "output: question",
            "column 'question' already exists in the source and can't be overwritten",
        ),
        ("mock:test", "mock:", "p.yaml:2: 'ref': expected mock:NAME"),
        ("replicas: 1", "engine_options: {slot: 2}", "unknown option 'slot' of the mock engine; did you mean 'slots'?"),
        ("replicas: 1", "python: /no/python", "p.yaml:2: 'python': no such interpreter '/no/python'"),
        ("mock:test", "./no/model", "p.yaml:2: 'ref': no such folder './no/model'"),
        ("mock:test", "./emptied", "p.yaml:2: 'ref': './emptied' is not a model folder"),
    ],
)
def test_a_pipeline_file_that_can_not_be_meant(here: Here, old: str, new: str, words: str) -> None:
    write(here.folder, PIPELINE.replace(old, new))
    (here.folder / "emptied").mkdir()
    told = here.run()
    told.refuses(words)
    assert len(told.err.splitlines()) == (2 if old == "sink:" else 1), told.err
    assert not (here.folder / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "p.yaml: the file is empty; a pipeline has models, source, steps and sink"),
        ("- a\n", "p.yaml:1: expected a mapping with source, steps and sink"),
        ("models: {a: [}\n", "p.yaml:1: not valid YAML"),
        ("source: q.jsonl\nsteps: []\nsink: out\n", "p.yaml:2: the pipeline has no steps; it needs at least one"),
        ("source: q.jsonl\n\tsink: out\n", "p.yaml:2: a tab; YAML is indented with spaces"),
        ("sink: out\nsink: in\n", "p.yaml:2: duplicate key 'sink'; first used in line 1"),
        ("\0", "p.yaml:1: the character '\\x00' is not allowed in YAML"),
    ],
)
def test_a_file_that_is_no_pipeline(here: Here, text: str, words: str) -> None:
    write(here.folder, text)
    here.run().refuses(words)


def test_a_bomb_of_aliases_is_refused(here: Here) -> None:
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
    bomb += "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    write(here.folder, bomb + PIPELINE)
    here.run().refuses("more than 50,000 values once aliases are followed")
    write(here.folder, "a: " + "[" * 5000 + "]" * 5000 + "\n" + PIPELINE)
    here.run().refuses("nested deeper than 64 levels")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("models.writer.replicas", "expected KEY=VALUE, for instance steps.generate.max_tokens=64"),
        ("models.writer.replica=2", "unknown key 'replica' in model; did you mean 'replicas'?"),
        ("models.writr.replicas=2", "no model is named 'writr'; did you mean 'writer'?"),
        ("steps.genrate.max_tokens=2", "no step is named 'genrate'; did you mean 'generate'?"),
        ("steps.7.max_tokens=2", "expected an index below 1, got '7'"),
        ("steps.generate.max_tokens=few", "'max_tokens': expected a whole number of at least 1, got 'few'"),
        ("seed.deep.key=1", "'seed': "),
        ("sink.path.deep=1", "'sink.path' is a single value and has no keys"),
        ("max_dead=[", "not valid YAML"),
        ("max_dead=!!python/name:os.system", "unsafe tag '!!python/name:os.system'"),
    ],
)
def test_a_set_that_can_not_be_meant(here: Here, setting: str, words: str) -> None:
    write(here.folder)
    here.run("--set", setting).refuses(f"penstock: --set {setting}: ", words)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (
            [{"embed": {"model": "minilm", "text": "{{ question }}", "output": "vector"}}],
            "steps of the kind 'embed' can't be run yet",
        ),
    ],
)
def test_steps_that_can_not_be_run_yet(here: Here, steps: list[dict[str, Any]], words: str) -> None:
    models = {"writer": {"ref": "mock:test"}, "minilm": {"ref": "mock:e", "task": "embed"}}
    write(here.folder, with_steps(*steps, models=models))
    here.run().refuses("p.yaml:", words)


# ---------------------------------------------------------------- engines and devices


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_an_engine_that_is_not_installed(here: Here, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.engine_info.is_installed", lambda info: False)
    write(here.folder, with_model(ref="owner/model", engine=engine))
    here.run().refuses(f"needs the engine '{engine}', which is not installed: {install_command(engine)}")
    write(here.folder, with_model(ref="owner/model"))
    here.run().refuses("no engine is installed that can run 'owner/model'", install_command("vllm"))


@pytest.mark.process
def test_an_engine_that_is_there_and_broken(tmp_path: Path) -> None:
    for module in ("torch", "transformers", "tokenizers"):
        (tmp_path / f"{module}.py").write_text("raise ImportError('libcudart.so.99: cannot open shared object file')\n")
    model = str(support.model_folder(tmp_path / "model"))
    write(tmp_path, with_model(ref=model, engine="transformers", replicas=1))
    told = support.run(tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    told.says(2, "libcudart.so.99", "transformers]'")
    assert summary(tmp_path)["status"] == "failed"


@pytest.mark.process
def test_an_interpreter_that_lacks_what_a_host_needs(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "penstock host: $0 lacks msgspec; install it with: pip" >&2\nexit 1\n')
    python.chmod(0o755)
    write(tmp_path, PIPELINE.replace("replicas: 1", f"python: {python}"))
    told = support.run(tmp_path)
    told.says(2, "writer-0 exited with code 1", f"{python} lacks msgspec; install it with: pip")
    assert told.err.count("lacks msgspec") < 4  # not the same words over and over


def test_more_replicas_of_a_real_engine_than_devices(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.engine_info.is_installed", lambda info: True)
    model = str(support.model_folder(here.folder / "model"))
    write(here.folder, with_model(ref=model, engine="transformers", replicas=999))
    here.run().refuses("999", "ask for fewer")


OPENAI = """\
models:
  writer:
    ref: small
    engine: openai
    base_url: {url}
    engine_options: {options}
source: {{path: q.jsonl}}
steps:
  - generate: {{model: writer, prompt: "{{{{ question }}}}", output: answer}}
sink: {{path: out}}
"""


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("http://h/v1", "{concurency: 3}", ("p.yaml:6: ", "no option 'concurency'; did you mean 'concurrency'?")),
        ("http://h/v1", "{api: responses}", ("p.yaml:6: ", "expected chat or completions")),
        ("http://h/v1", "{retries: many}", ("p.yaml:6: ", "retries is 'many'; expected int")),
        ("http://h/v1", "{extra_body: {stream: true}}", ("p.yaml:6: ", "stream")),
        ("http://h/v1", "{concurrency: 0}", ("p.yaml:6: ", "at least 1")),
        ("http://me:pw@h/v1", "{}", ("p.yaml:5: ", "contains a password")),
    ],
)
def test_options_that_the_engine_would_refuse_are_told_before_anything_is_written(
    here: Here, url: str, options: str, words: tuple[str, ...]
) -> None:
    write(here.folder, OPENAI.format(url=url, options=options))
    here.run().refuses(*words)
    assert not (here.folder / "out").exists()


def test_options_of_transformers_are_told_before_anything_is_written(here: Here) -> None:
    model = here.folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    text = OPENAI.replace("engine: openai", "engine: transformers").replace("base_url: {url}", "batch_size: 1")
    write(here.folder, text.format(options="{atn_implementation: sdpa}").replace("ref: small", "ref: ./model"))
    here.run().refuses("p.yaml:6: ", "did you mean 'attn_implementation'?")
    assert not (here.folder / "out").exists()
