"""Ray Data LLM on the mixed workload: two vLLM replicas of one core each. Started by bench/vllm_two_replicas.py.

    python ray_data_llm.py MODEL ROWS.jsonl BATCH_SIZE CONCURRENT_BATCHES

Writes one JSON line: {"span_s", "tokens_out", "rows", "whole_s"}. The span runs from the first request that reached
an engine to the last response, both read from the engines' own metrics, so that neither loading nor Ray's start
counts. All actors share one environment, so that cores can't be bound by number: each engine has one OpenMP thread
and the system places it. Needs Ray and vLLM.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}


def request(row: dict[str, Any]) -> dict[str, Any]:
    sampling = {"max_tokens": row["n"], "temperature": 0.0, "ignore_eos": True}
    return {"prompt": row["prompt"], "sampling_params": sampling, "n": row["n"]}


def answer(row: dict[str, Any]) -> dict[str, Any]:
    """Keep what the figure needs. vLLM stamps arrival on the wall clock and tokens on the machine's monotonic one."""
    metrics = row["metrics"]
    return {
        "tokens_out": row["num_generated_tokens"],
        "arrived": metrics["arrival_time"] - time.time() + time.monotonic(),
        "ended": metrics["last_token_ts"],
    }


def processor(model: str, batch_size: int, concurrent_batches: int) -> Any:
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    config = vLLMEngineProcessorConfig(
        model_source=model,
        engine_kwargs={"max_model_len": 1024},
        concurrency=(2, 2),
        batch_size=batch_size,
        max_concurrent_batches=concurrent_batches,
        chat_template_stage=False,
        tokenize_stage={"num_cpus": 0.1, "concurrency": 1},
        detokenize_stage=False,
        placement_group_config={"bundles": [{"CPU": 1}]},
        runtime_env={"env_vars": ENVIRONMENT},
        log_engine_metrics=False,
    )
    return build_processor(config, preprocess=request, postprocess=answer)


def main() -> None:
    model, rows_file, batch_size, concurrent_batches = sys.argv[1:5]
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import ray

    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=True)
    rows = [json.loads(line) for line in Path(rows_file).read_text().splitlines()]
    began = time.monotonic()
    made = processor(model, int(batch_size), int(concurrent_batches))(ray.data.from_items(rows)).take_all()
    facts = {
        "span_s": max(row["ended"] for row in made) - min(row["arrived"] for row in made),
        "tokens_out": sum(int(row["tokens_out"]) for row in made),
        "rows": len(made),
        "whole_s": time.monotonic() - began,
    }
    replies.write(json.dumps(facts) + "\n")
    ray.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
