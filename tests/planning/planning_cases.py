"""Pairs of models and machines whose plans a person has read; the plans stand in tests/golden/plans."""

from __future__ import annotations

from typing import NamedTuple

from planning_models import facts

from penstock.planner.model import ModelFacts
from penstock.planner.result import Plan
from penstock.planning.plan import cluster_nodes, plan_on_nodes
from penstock.spec.cluster import read_cluster
from penstock.spec.load import load_pipeline
from penstock.spec.pipeline import Pipeline

DGX = "{name: a, devices: 8, device_memory_gb: 80, link: nvlink, cpus: 64}"
FOUR = "{name: a, devices: 4, device_memory_gb: 80, link: nvlink}"
TWO_4090 = "{name: pc, devices: 2, device_memory_gb: 24, link: pcie}"
TWO_80 = "{name: a, devices: 2, device_memory_gb: 80, link: nvlink}"
SMALL = "{name: b, count: 3, devices: 4, device_memory_gb: 24}"
TWO_DGX = DGX.replace("name: a", "name: a, count: 2")
UNEVEN = tuple(
    f"{{name: {name}, devices: {size}, device_memory_gb: 80, link: nvlink}}"
    for name, size in zip("abc", (6, 2, 8), strict=True)
)
ONE_4090 = "{name: pc, devices: 1, device_memory_gb: 24}"


class Case(NamedTuple):
    """models: name -> options; nodes: entries of a cluster file; uses: the order in which steps use the models."""

    models: dict[str, str]
    nodes: tuple[str, ...]
    uses: tuple[str, ...] = ()
    resources: str = ""


CASES: dict[str, Case] = {
    "8b_on_one_24gb": Case({"writer": "ref: llama-3.1-8b"}, (ONE_4090,)),
    "8b_on_two_24gb_pcie": Case({"writer": "ref: llama-3.1-8b"}, (TWO_4090,)),
    "8b_on_eight_80gb": Case({"writer": "ref: llama-3.1-8b"}, (DGX,)),
    "8b_for_latency": Case({"writer": "ref: llama-3.1-8b, goal: latency"}, (DGX,)),
    "8b_tensor_parallel_2": Case({"writer": "ref: llama-3.1-8b, tensor_parallel: 2, replicas: 3"}, (DGX,)),
    "8b_on_a_laptop": Case({"writer": "ref: llama-3.1-8b"}, ("{name: laptop, cpus: 8, memory_gb: 32}",)),
    "8b_too_large_for_a_laptop": Case({"writer": "ref: llama-3.1-8b"}, ("{name: laptop, cpus: 4, memory_gb: 16}",)),
    "8b_reserve_for_a_trainer": Case(
        {"writer": "ref: llama-3.1-8b"}, (TWO_DGX,), (), "reserve: {per_node: 6}"
    ),
    "8b_with_devices_taken": Case({"writer": "ref: qwen3-8b"}, (DGX.replace("cpus: 64", "used: [0, 1, 5]"),)),
    "mistral_window_on_16gb": Case({"writer": "ref: mistral-7b-v0.1"}, (ONE_4090.replace("24}", "16}"),)),
    "mistral_window_on_24gb": Case({"writer": "ref: mistral-7b-v0.1"}, (ONE_4090,)),
    "gemma2_9b_hybrid": Case({"writer": "ref: gemma-2-9b-it"}, (TWO_4090,)),
    "gemma3_27b_on_80gb": Case({"writer": "ref: gemma-3-27b-it"}, (FOUR,)),
    "gemma3_1b_small": Case({"writer": "ref: gemma-3-1b-it"}, ("{name: t4, devices: 4, device_memory_gb: 16}",)),
    "70b_on_eight_80gb": Case({"writer": "ref: llama-3.1-70b"}, (DGX,)),
    "70b_on_two_24gb": Case({"writer": "ref: llama-3.1-70b"}, (TWO_4090,)),
    "70b_on_eight_24gb_pcie": Case(
        {"writer": "ref: llama-3.1-70b"}, ("{name: a, devices: 8, device_memory_gb: 24, link: pcie}",)
    ),
    "70b_on_eight_48gb_pcie": Case(
        {"writer": "ref: llama-3.1-70b"}, ("{name: a, devices: 8, device_memory_gb: 48, link: pcie}",)
    ),
    "70b_fp8_on_two_80gb": Case(
        {"writer": "ref: llama-3.1-70b, quantization: fp8"}, (TWO_80,)
    ),
    "70b_across_nodes": Case(
        {"writer": "ref: llama-3.1-70b"}, ("{name: a, count: 4, devices: 2, device_memory_gb: 80, link: nvlink}",)
    ),
    "70b_context_too_long": Case({"writer": "ref: llama-3.1-70b, max_model_len: 131072"}, (FOUR.replace("80", "48"),)),
    "70b_tensor_parallel_16": Case({"writer": "ref: llama-3.1-70b, tensor_parallel: 16"}, (DGX,)),
    "70b_uneven_nodes": Case(
        {"writer": "ref: llama-3.1-70b, tensor_parallel: 4"},
        UNEVEN,
    ),
    "mixtral_on_eight_80gb": Case({"writer": "ref: mixtral-8x7b-v0.1"}, (DGX,)),
    "qwen3_30b_a3b_on_80gb": Case({"writer": "ref: qwen3-30b-a3b"}, (FOUR,)),
    "deepseek_v2_lite_mla": Case({"writer": "ref: deepseek-v2-lite"}, (FOUR.replace("80", "40"),)),
    "deepseek_v3_on_eight_141gb": Case({"writer": "ref: deepseek-v3"}, (DGX.replace("80", "141"),)),
    "deepseek_v3_on_two_nodes_of_80gb": Case({"writer": "ref: deepseek-v3"}, (TWO_DGX,)),
    "awq_7b_on_16gb": Case({"writer": "ref: qwen2.5-7b-instruct-awq"}, (TWO_4090.replace("24", "16"),)),
    "gptq_7b_heads_not_divisible": Case({"writer": "ref: llama-2-7b-chat-gptq, tensor_parallel: 3"}, (DGX,)),
    "two_models_even": Case({"writer": "ref: llama-3.1-8b", "judge": "ref: llama-3.1-70b"}, (DGX,)),
    "two_models_priority": Case(
        {"writer": "ref: llama-3.1-8b", "judge": "ref: llama-3.1-70b, weight: 3"},
        (TWO_DGX,), (), "gpu_allocation_strategy: priority",
    ),
    "two_models_in_phases": Case(
        {"writer": "ref: llama-3.1-8b", "judge": "ref: qwen3-8b"}, (ONE_4090,), ("writer", "judge", "writer")
    ),
    "mixed_devices": Case(
        {"writer": "ref: llama-3.1-8b", "judge": "ref: llama-3.1-70b"}, (DGX, SMALL),
    ),
    "embedding_and_mock": Case(
        {"minilm": "ref: all-minilm-l6-v2, task: embed", "fake": 'ref: "mock:x", replicas: 2'}, (TWO_4090,)
    ),
}  # fmt: skip


def pipeline(case: Case) -> Pipeline:
    steps = []
    for number, name in enumerate(case.uses or tuple(case.models)):
        if "task: embed" in case.models[name]:
            steps.append(f"  - embed: {{model: {name}, text: a, output: o{number}}}")
        else:
            steps.append(f"  - generate: {{model: {name}, prompt: a, output: o{number}}}")
    models = "\n".join(f"  {name}: {{{options}}}" for name, options in case.models.items())
    resources = f"resources: {{{case.resources}}}\n" if case.resources else ""
    text = f"models:\n{models}\nsource: q.jsonl\nsink: out\n{resources}steps:\n" + "\n".join(steps)
    return load_pipeline(text, "pipeline.yaml")


def read(ref: str, revision: str | None) -> ModelFacts:
    return facts(ref)


def plan(case: Case) -> Plan:
    cluster = read_cluster("nodes:\n" + "\n".join(f"  - {node}" for node in case.nodes), "cluster.yaml")
    return plan_on_nodes(pipeline(case), cluster_nodes(cluster), here=False, read=read)
