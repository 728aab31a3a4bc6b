"""Load one model as Penstock's vLLM engine does, and print what its KV cache holds, as JSON. Run under vLLM's Python.

python bench/peers/vllm_kv_tokens.py FOLDER KV_BYTES
"""

from __future__ import annotations

import json
import sys

from penstock.engines.vllm.load import start_vllm
from penstock.protocol.messages import EngineConfig


def main() -> None:
    folder, kv_bytes = sys.argv[1], int(sys.argv[2])
    options = {"kv_cache_memory_bytes": kv_bytes, "enforce_eager": True}
    config = EngineConfig(engine="vllm", ref=folder, engine_options=options, cores=(0,))
    started = start_vllm(config, lambda note: None)
    cache = started.engine.vllm_config.cache_config
    found = {
        "engine_kv_tokens": started.kv_tokens,
        "vllm_kv_tokens": getattr(cache, "kv_cache_size_tokens", None),
        "max_model_len": started.max_model_len,
        "slots": started.slots,
        "blocks": cache.num_gpu_blocks,
        "block_tokens": cache.block_size,
    }
    started.engine.shutdown()
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
