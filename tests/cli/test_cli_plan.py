"""`penstock plan` as a command: table, JSON, exit codes, and the errors of files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.main import main

PIPELINE = """\
models:
  writer: {ref: %s}
  fake: {ref: "mock:x", replicas: 2}
source: questions.jsonl
steps:
  - generate: {model: writer, prompt: "{{ question }}", output: answer}
  - generate: {model: fake, prompt: "{{ answer }}", output: other}
sink: out
"""
CLUSTER = """\
nodes:
  - {name: a, count: 2, devices: 8, device_memory_gb: 80, link: nvlink, cpus: 64}
  - {name: b, devices: 2, device_memory_gb: 24, link: pcie, used: [0]}
"""
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256,
    "max_position_embeddings": 131072, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
TOTAL_BYTES = 141_107_412_992
Plan = Callable[..., int]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """plan("--json", ...) in a folder that has pipeline, cluster and a model of 70B parameters; the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    index = {"metadata": {"total_size": TOTAL_BYTES}, "weight_map": {"x": "model-00001-of-00030.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "pipeline.yaml").write_text(PIPELINE % "./model")
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    return lambda *options: main(["plan", "pipeline.yaml", *options])


def facts(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_json_has_the_shape_of_the_contract(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--cluster", "cluster.yaml", "--json") == 0
    made = facts(capsys)
    assert (made["fits"], made["reason"], made["alternatives"]) == (True, None, [])
    assert made["phases"] == [["writer", "fake"]]
    writer = made["models"]["writer"]
    assert writer["names"] == ["writer"] and writer["dtype"] == "bfloat16"
    assert writer["weights_bytes"] == TOTAL_BYTES and writer["kv_bytes_per_token"] == 2 * 80 * 8 * 128 * 2
    assert writer["max_model_len"] == 131072
    assert [replica["id"] for replica in writer["replicas"]] == [f"writer-{number}" for number in range(4)]
    first = writer["replicas"][0]
    assert first["nodes"] == ["a-0"] and first["devices"] == [f"a-0/gpu:{index}" for index in range(4)]
    assert (first["tensor_parallel"], first["pipeline_parallel"]) == (4, 1)
    assert set(first["memory"]) == {"weights", "kv", "activations", "reserve", "device"}
    assert first["memory"]["device"] == 80_000_000_000 and first["max_num_seqs"] == 1024 and first["kv_tokens"] > 0
    assert {"layout": "tp=1 pp=1", "reason": "weights 141.1 GB, device 80.0 GB"} in writer["rejected"]
    assert len(made["models"]["fake"]["replicas"]) == 2


def test_the_table(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--cluster", "cluster.yaml") == 0
    told = capsys.readouterr()
    assert told.out.startswith("the plan fits") and "tp=4 pp=1" in told.out and "weights 35.3 GB" in told.out
    assert "\x1b" not in told.out and not told.err


def test_what_does_not_fit_is_code_2_with_its_json(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--cluster", "cluster.yaml", "--set", "models.writer.tensor_parallel=16", "--json")
    assert plan(*options) == 2
    told = capsys.readouterr()
    made = json.loads(told.out)
    assert made["fits"] is False and made["phases"] == [] and made["alternatives"]
    assert made["reason"].startswith("writer: tensor_parallel 16 needs 16 devices in one node")
    assert told.err.startswith("penstock: writer: tensor_parallel 16")


def test_what_does_not_fit_in_words(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--cluster", "cluster.yaml", "--set", "models.writer.replicas=9") == 2
    told = capsys.readouterr()
    assert "the plan does not fit" in told.out and "what would fit" in told.out and "replicas: auto" in told.out


def test_a_cluster_file_with_errors(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cluster.yaml").write_text("nodes:\n  - {name: a, devises: 8, device_memory_gb: 80}\n")
    assert plan("--cluster", "cluster.yaml") == 2
    told = capsys.readouterr()
    assert "cluster.yaml:2: unknown key 'devises' in node; did you mean 'devices'?" in told.err and not told.out


def test_no_such_cluster_file(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--cluster", "gone.yaml") == 2
    assert "gone.yaml: no such cluster file" in capsys.readouterr().err


def test_a_model_folder_without_weights(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model" / "model.safetensors.index.json").unlink()
    assert plan("--cluster", "cluster.yaml", "--json") == 2
    told = capsys.readouterr()
    assert "has no weights" in told.err and "the index is enough to plan" in told.err and not told.out


def test_models_without_devices_need_none(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pipeline.yaml").write_text(PIPELINE % '"mock:y"')
    assert plan("--json") == 0
    writer = facts(capsys)["models"]["writer"]
    assert len(writer["replicas"]) == 1 and "/cpu:" in writer["replicas"][0]["devices"][0]


def test_a_mock_that_says_how_it_is_divided_stands_for_a_real_model(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipeline.yaml").write_text(PIPELINE % '"mock:y", tensor_parallel: 8')
    assert plan("--cluster", "cluster.yaml", "--json") == 0
    writer = facts(capsys)["models"]["writer"]
    assert [replica["nodes"] for replica in writer["replicas"]] == [["a-0"], ["a-1"]]
    assert plan("--json") == 0  # here, where there may be no device


def test_nothing_heavy_is_loaded() -> None:
    code = "import sys, penstock.planning.plan, penstock.report.plan_view; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {module.split(".")[0] for module in done.stdout.split()}
    assert not loaded & {"torch", "vllm", "transformers", "ray", "pyarrow", "huggingface_hub"}
