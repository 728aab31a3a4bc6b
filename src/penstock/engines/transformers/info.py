"""The record of the transformers engine: one device a replica, any architecture."""

from penstock.engine_info import BatchDefaults, EngineInfo, MemoryRules

INFO = EngineInfo(
    name="transformers",
    adapter="penstock.engines.transformers.engine:TransformersEngine",
    check="penstock.engines.transformers.load:check_model",
    modules=("torch", "transformers"),
    distributions=("torch", "transformers"),
    extra="transformers",
    preference=1,
    small_machines=True,
    devices=True,
    memory=MemoryRules(
        splits=False,
        utilization=0.97,
        block_tokens=1,
        cpu_block_tokens=1,
        hybrid_kv=False,
        kv_share=0.8,  # the rest is for activations and logits
        cpu_kv_bytes=2_000_000_000,
        process_bytes=700_000_000,
    ),
    batch=BatchDefaults(gpu=(128, 8192), cpu=(64, 2048)),
    placement_options=frozenset({"kv_cache_gb", "max_num_batched_tokens", "max_num_seqs"}),
)
