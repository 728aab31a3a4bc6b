"""Folders of models as people have them: complete, with an index alone, damaged, of unknown make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning_models import facts, fixture, write_folder

from penstock.errors import PlanError
from penstock.planning.read.facts import read_model_facts
from penstock.planning.read.folder import INDEX
from penstock.planning.read.headers import read_header, tensors_of


def refused(folder: Path) -> str:
    with pytest.raises(PlanError) as told:
        read_model_facts(str(folder))
    assert told.value.exit_code == 2
    return str(told.value)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_headers_alone_are_enough(tmp_path: Path) -> None:
    found = read_model_facts(str(write_folder(tmp_path / "m", "qwen2.5-0.5b-instruct")))
    exact = facts("qwen2.5-0.5b-instruct")
    assert found.weights_bytes("bfloat16") == exact.weights_bytes("bfloat16")
    assert found.confidence == "exact" and any("shorter than the header claims" in doubt for doubt in found.doubts)


def test_an_index_alone_is_enough(tmp_path: Path) -> None:
    total = fixture("llama-3.1-8b")["published_bytes"]
    found = read_model_facts(str(write_folder(tmp_path / "m", "llama-3.1-8b", total_bytes=total)))
    assert found.weights_bytes("bfloat16") == total == found.stored_bytes
    assert found.confidence == "estimated" and not found.doubts


def test_an_index_that_disagrees_is_told(tmp_path: Path) -> None:
    found = read_model_facts(str(write_folder(tmp_path / "m", "llama-3.1-8b", total_bytes=20_000_000_000)))
    assert found.weights_bytes("bfloat16") == 20_000_000_000
    assert any("20.0 GB" in doubt and "16.1 GB" in doubt for doubt in found.doubts)


def test_part_of_the_weights(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "qwen3-8b", total_bytes=16_381_470_720)
    index = {"metadata": {"total_size": 16_381_470_720}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (folder / INDEX).write_text(json.dumps(index))
    (folder / "1.safetensors").write_bytes(b"")
    assert any("1 of 2 weight files are missing" in doubt for doubt in read_model_facts(str(folder)).doubts)


def test_no_such_folder(tmp_path: Path) -> None:
    assert refused(tmp_path / "gone").endswith("no such folder")
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(tmp_path / "file")


def test_without_config(tmp_path: Path) -> None:
    assert "config.json is missing" in refused(tmp_path)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "has no weights"),
        (("pytorch_model.bin",), "a pickle, which Penstock never loads"),
        (("model.gguf",), "GGUF"),
    ],
)
def test_without_weights(tmp_path: Path, files: tuple[str, ...], words: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fixture("qwen3-8b")["config"]))
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    assert words in refused(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "has no 'num_hidden_layers'"),
        ('{"num_hidden_layers": "many"}', "'num_hidden_layers': expected a whole number"),
        ('{"num_hidden_layers": 0}', "'num_hidden_layers': expected at least 1"),
    ],
)
def test_a_config_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    folder = write_folder(tmp_path / "m", "qwen2.5-0.5b-instruct")
    (folder / "config.json").write_text(text)
    told = refused(folder)
    assert words in told and told.startswith(str(folder / "config.json"))


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\x00" * 8,
        b"\xff" * 16,
        (1000).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"{{{{",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"\xff\xfe",
        b"not a safetensors file at all",
    ],
)
def test_a_damaged_header(tmp_path: Path, damage: bytes) -> None:
    folder = write_folder(tmp_path / "m", "qwen2.5-0.5b-instruct")
    (folder / "model.safetensors").write_bytes(damage)
    told = refused(folder)
    assert told.startswith(str(folder / "model.safetensors")) and "download it again" in told


@given(st.binary(max_size=64))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    try:
        assert isinstance(read_header(path).tensors, list)
    except PlanError as error:
        assert error.where == str(path)


@pytest.mark.parametrize(
    "entry", [1, {}, {"dtype": "F99", "shape": [1]}, {"dtype": "F32", "shape": [-1]}, {"dtype": 1}]
)
def test_a_header_entry_that_makes_no_sense(entry: object) -> None:
    with pytest.raises(PlanError):
        tensors_of({"x": entry}, "file")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid JSON"),
        ("{}", "no weight_map"),
        ('{"weight_map": {"a": "../../etc/passwd"}}', "outside its folder"),
    ],
)
def test_a_damaged_index(tmp_path: Path, text: str, words: str) -> None:
    folder = write_folder(tmp_path / "m", "qwen3-8b", total_bytes=1)
    (folder / INDEX).write_text(text)
    assert words in refused(folder)


def test_an_unknown_architecture_is_planned_with_doubt(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "qwen2.5-0.5b-instruct")
    change_config(folder, model_type="brandnew", architectures=["BrandNewForCausalLM"])
    found = read_model_facts(str(folder))
    assert found.confidence == "unknown architecture" and "brandnew" in found.doubts[-1]
    assert found.weights_bytes("bfloat16") == facts("qwen2.5-0.5b-instruct").weights_bytes("bfloat16")


def test_layers_of_constant_state_are_told(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "qwen2.5-0.5b-instruct")
    change_config(folder, layer_types=["linear_attention", "full_attention"] * 12)
    found = read_model_facts(str(folder))
    assert len(found.windows) == 12 and found.state_layers == 12
    assert found.confidence == "unknown architecture" and "linear_attention" in found.doubts[-1]


def test_names_of_no_known_pattern_are_dealt_to_the_layers(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "qwen2.5-0.5b-instruct")
    header = {"__metadata__": {}, "tower/a": {"dtype": "F32", "shape": [1000, 24], "data_offsets": [0, 96000]}}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    found = read_model_facts(str(folder))
    assert found.weights_bytes("float32") == 96000 and len({layer.divided for layer in found.layers}) == 1
