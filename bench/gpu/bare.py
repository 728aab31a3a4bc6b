"""The libraries by themselves, for comparison: `python bare.py ASKED.json REPLY.json`, a process of its own.

ASKED: {"library": "vllm" | "transformers", "model", "options", "prompts" (token ids), "max_tokens" (one per prompt),
        "ignore_eos", "passes", "batch" (transformers: prompts at a time), "device" (transformers)}
REPLY: {"tokens": of each prompt, "spans_s": of each pass, "library": name and version, "torch": version}
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def run_vllm(asked: dict[str, Any]) -> dict[str, Any]:
    import vllm

    llm = vllm.LLM(model=asked["model"], disable_log_stats=True, **asked["options"])
    common = {"temperature": 0.0, "ignore_eos": asked["ignore_eos"]}
    sampling = [vllm.SamplingParams(max_tokens=limit, **common) for limit in asked["max_tokens"]]
    prompts = [vllm.TokensPrompt(prompt_token_ids=ids) for ids in asked["prompts"]]
    llm.generate(prompts[:8], vllm.SamplingParams(max_tokens=4), use_tqdm=False)
    spans_s, outputs = [], []
    for _ in range(asked["passes"]):
        began_s = time.monotonic()
        outputs = llm.generate(prompts, sampling, use_tqdm=False)
        spans_s.append(time.monotonic() - began_s)
    tokens = [list(output.outputs[0].token_ids) for output in outputs]
    llm.llm_engine.engine_core.shutdown()  # its child would outlive us
    return {"tokens": tokens, "spans_s": spans_s, "library": f"vllm {vllm.__version__}"}


def run_transformers(asked: dict[str, Any]) -> dict[str, Any]:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(asked["model"], **asked["options"])
    model = model.to(asked["device"]).eval()
    spans_s: list[float] = []
    tokens: list[list[int]] = []
    for _ in range(asked["passes"]):
        tokens = []
        began_s = time.monotonic()
        for start in range(0, len(asked["prompts"]), asked["batch"]):
            tokens += _generate(torch, model, asked, start)
        spans_s.append(time.monotonic() - began_s)
    return {"tokens": tokens, "spans_s": spans_s, "library": f"transformers {transformers.__version__}"}


def _generate(torch: Any, model: Any, asked: dict[str, Any], start: int) -> list[list[int]]:
    """One static batch, padded on the left, each row cut at its own limit or end."""
    prompts = asked["prompts"][start : start + asked["batch"]]
    limits = asked["max_tokens"][start : start + asked["batch"]]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    ends = {} if not asked["ignore_eos"] else {"eos_token_id": None, "min_new_tokens": max(limits)}
    output = model.generate(ids, attention_mask=mask, max_new_tokens=max(limits), do_sample=False, **ends)
    eos = model.generation_config.eos_token_id
    rows = []
    for row, limit in zip(output[:, width:].tolist(), limits, strict=True):
        end = limit if asked["ignore_eos"] or eos not in row else row.index(eos) + 1
        rows.append(row[: min(end, limit)])
    return rows


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text())
    reply = {"vllm": run_vllm, "transformers": run_transformers}[asked["library"]](asked)
    import torch

    Path(sys.argv[2]).write_text(json.dumps({**reply, "torch": torch.__version__}))
    sys.stdout.flush()
    os._exit(0)  # an orderly exit may wait for the engine's child


if __name__ == "__main__":
    main()
