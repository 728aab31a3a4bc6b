"""One bare vLLM engine: `LLM.generate` on all rows at once. Started by bench/vllm_two_replicas.py, one process each.

    python bare_vllm.py MODEL ROWS.jsonl < commands      one line "go" starts a pass, end of input ends the process

Writes one JSON line when ready, and one for each pass: {"span_s", "tokens_out", "rows"}. The prefix cache is emptied
between passes, so that each does the same work. Needs vLLM; the caller sets core binding and cache size by
environment variables, and ends the whole process group.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def one_pass(llm: Any, rows: list[dict[str, Any]]) -> dict[str, float]:
    from vllm import SamplingParams

    llm.reset_prefix_cache()
    prompts = [row["prompt"] for row in rows]
    sampling = [SamplingParams(max_tokens=row["n"], temperature=0.0, ignore_eos=True) for row in rows]
    began = time.monotonic()
    outputs = llm.generate(prompts, sampling, use_tqdm=False)
    span_s = time.monotonic() - began
    return {"span_s": span_s, "tokens_out": sum(len(o.outputs[0].token_ids) for o in outputs), "rows": len(outputs)}


def main() -> None:
    model, rows_file = sys.argv[1:3]
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what vLLM prints goes to the log, not between the replies
    from vllm import LLM, SamplingParams

    rows = [json.loads(line) for line in Path(rows_file).read_text().splitlines()]
    llm = LLM(model=model, max_model_len=1024, disable_log_stats=True)
    llm.generate(["warm up"], SamplingParams(max_tokens=4), use_tqdm=False)
    replies.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        if line.strip() == "go":
            replies.write(json.dumps(one_pass(llm, rows)) + "\n")
    os._exit(0)  # an orderly exit waits for the engine's child for ever


if __name__ == "__main__":
    main()
