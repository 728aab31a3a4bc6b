"""The record of the vLLM engine: continuous batching, models divided over devices."""

from penstock.engine_info import GIB, BatchDefaults, EngineInfo, MemoryRules

INFO = EngineInfo(
    name="vllm",
    adapter="penstock.engines.vllm.engine:VllmEngine",
    check="penstock.engines.vllm.load:check_model",
    tasks=("generate", "embed"),
    modules=("vllm",),
    distributions=("vllm", "torch"),
    extra="vllm",
    preference=2,
    devices=True,
    memory=MemoryRules(cpu_kv_in_gib=True, cpu_kv_bytes=GIB, quantizes=("fp8", "bitsandbytes"), halves_float32=True),
    # `EngineArgs.get_batch_defaults` for its offline class.
    batch=BatchDefaults(gpu=(256, 8192), large_gpu=(1024, 16384), cpu=(256, 4096)),
    placement_options=frozenset(
        {
            "block_size",
            "cpu_offload_gb",
            "disable_custom_all_reduce",
            "disable_log_stats",
            "distributed_executor_backend",
            "download_dir",
            "enable_chunked_prefill",
            "enable_prefix_caching",
            "enforce_eager",
            "gpu_memory_utilization",
            "kv_cache_gb",
            "kv_cache_memory_bytes",
            "load_format",
            "max_num_batched_tokens",
            "max_num_seqs",
            "max_parallel_loading_workers",
            "swap_space",
        }
    ),
)
