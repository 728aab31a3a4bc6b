"""The record of the openai engine: any service that speaks the OpenAI API."""

from penstock.engine_info import EngineInfo

INFO = EngineInfo(
    name="openai",
    adapter="penstock.engines.openai.engine:OpenAIEngine",
    check="penstock.engines.openai.engine:check_model",
    tasks=("generate", "embed"),
    modules=("aiohttp",),
    distributions=("aiohttp",),
    extra="openai",
    remote=True,
    slots=64,  # for each base URL
    slots_option="concurrency",
    placement_options=frozenset(
        {"api_key_env", "concurrency", "headers_env", "patience_s", "retries", "start_patience_s", "timeout_s"}
    ),
)
