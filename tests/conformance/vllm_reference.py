"""Runs under an interpreter with vLLM: what `vllm.LLM` itself gives. `python vllm_reference.py ASKED.json REPLY.json`

ASKED: {"model", "options" of LLM, "prompts" (token ids), "sampling" (fields of SamplingParams)}
REPLY: {"tokens": token ids of each output, "seconds": of generating, "vllm": its version}
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text())
    import vllm

    llm = vllm.LLM(model=asked["model"], disable_log_stats=True, **asked["options"])
    sampling = vllm.SamplingParams(**asked["sampling"])
    prompts = [vllm.TokensPrompt(prompt_token_ids=ids) for ids in asked["prompts"]]
    began_s = time.monotonic()
    outputs = llm.generate(prompts, sampling, use_tqdm=False)
    reply = {
        "tokens": [list(output.outputs[0].token_ids) for output in outputs],
        "seconds": time.monotonic() - began_s,
        "vllm": vllm.__version__,
    }
    Path(sys.argv[2]).write_text(json.dumps(reply))
    llm.llm_engine.engine_core.shutdown()  # its child would outlive us, and an orderly exit would wait for it
    os._exit(0)


if __name__ == "__main__":
    main()
