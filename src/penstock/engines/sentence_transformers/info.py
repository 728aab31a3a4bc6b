"""The record of the sentence-transformers engine. It has no adapter yet: its models are planned, not started."""

from penstock.engine_info import BatchDefaults, EngineInfo, MemoryRules

INFO = EngineInfo(
    name="sentence-transformers",
    tasks=("embed",),
    payloads=frozenset({"text"}),
    honours=frozenset({"embedding"}),
    modules=("torch", "sentence_transformers"),
    distributions=("torch", "sentence-transformers"),
    extra="embed",
    preference=3,
    devices=True,
    memory=MemoryRules(splits=False, utilization=0.90, has_kv=False, process_bytes=700_000_000),
    batch=BatchDefaults(gpu=(256, 16384), cpu=(32, 4096)),
    placement_options=frozenset({"max_num_batched_tokens", "max_num_seqs"}),
)
