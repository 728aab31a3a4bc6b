"""The record of the mock engine: a cost model and predictable answers in real processes."""

from penstock.engine_info import EngineInfo, EngineOption

INFO = EngineInfo(
    name="mock",
    adapter="penstock.engines.mock.engine:MockEngine",
    tasks=("generate", "embed"),
    payloads=frozenset({"text", "tokens", "messages", "pair"}),
    honours=frozenset({"sampling", "embedding", "scoring", "classification", "parts"}),
    devices_if_split=True,
    ref_prefix="mock:",
    slots=1,
    slots_option="slots",
    options={
        "slots": EngineOption("count"),
        "ms_per_row": EngineOption("number"),
        "ms_per_token": EngineOption("number"),
        "load_ms": EngineOption("number"),
        "seed": EngineOption("whole", answers=True, default=0),
        "fail_on": EngineOption("text"),
        "crash_on": EngineOption("text"),
        "hang_on": EngineOption("text"),
        "oom_over_tokens": EngineOption("count"),
        "wake_ms": EngineOption("number"),
        "load_oom_over_seqs": EngineOption("count"),
        "eos_median_tokens": EngineOption("number", answers=True, default=0),
        "dimension": EngineOption("count", answers=True, default=384),
        "eos_sigma": EngineOption("number", answers=True, default=0),
    },
)
