"""Planned against actual KV tokens, with vLLM on the CPU: three small models of different shapes, within 2%.

python bench/vllm_kv_tokens.py        needs PENSTOCK_VLLM_PYTHON, and torch and transformers to make the models
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import ROOT, Figure, main, say, work_folder
from make_model import SHAPE, make_tokenizer
from penstock.planner.cluster import CpuDomain
from penstock.planner.cpu import NodeDomain, cpu_fit
from penstock.planner.demand import PoolDemand
from penstock.planning.read.facts import read_model_facts

NEAR = 0.02
COMMON = {**SHAPE, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
# name -> (transformers' configuration, its model, what differs from the benchmarks' usual shape)
SHAPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "grouped": ("Qwen3Config", "Qwen3ForCausalLM", {}),
    "multi-head": ("LlamaConfig", "LlamaForCausalLM", {"num_key_value_heads": 8}),
    "sliding window": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {"num_hidden_layers": 12, "sliding_window": 256, "max_position_embeddings": 8192},
    ),
}


def make(folder: Path, shape: str) -> None:
    import torch
    import transformers

    config_class, model_class, changes = SHAPES[shape]
    folder.mkdir(parents=True)
    make_tokenizer(folder)
    config = getattr(transformers, config_class)(**{**COMMON, **changes})
    getattr(transformers, model_class)(config).to(torch.bfloat16).save_pretrained(folder)


def planned(folder: Path, kv_bytes: int) -> int:
    facts = read_model_facts(str(folder))
    demand = PoolDemand(name="model", names=("model",), engine="vllm", facts=facts, kv_bytes=kv_bytes)
    return cpu_fit(demand, NodeDomain("here", CpuDomain((0,), 10**12))).kv_tokens


def actual(folder: Path, kv_bytes: int) -> dict[str, Any]:
    python = os.environ.get("PENSTOCK_VLLM_PYTHON")
    if not python:
        raise SystemExit("PENSTOCK_VLLM_PYTHON is not set: `make vllm-env` makes an environment with vLLM")
    script = ROOT / "bench" / "peers" / "vllm_kv_tokens.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "VLLM_LOGGING_LEVEL": "WARNING"}
    command = [python, str(script), str(folder), str(kv_bytes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"vLLM failed on {folder.name}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def measure(arguments: argparse.Namespace) -> list[Figure]:
    kv_bytes = arguments.kv_mb * 1_000_000
    figures = []
    with work_folder() as work:
        for shape in SHAPES:
            folder = work / shape.replace(" ", "-")
            make(folder, shape)
            ours, theirs = planned(folder, kv_bytes), actual(folder, kv_bytes)
            say(f"{shape}: {theirs}")
            tokens = theirs["vllm_kv_tokens"] or theirs["engine_kv_tokens"]
            ratio = ours / tokens
            measured = f"{ours:,} planned, {tokens:,} actual: {ratio:.4f}"
            figures.append(Figure("vllm_kv_tokens", shape, measured, "1 +- 0.02", abs(ratio - 1) <= NEAR))
    return figures


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], kv_mb=200)
