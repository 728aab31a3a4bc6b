"""What the specification knows of engines: their names, the options of the mock, and which options change answers.

Nothing of an engine is imported here; a plan or a check of a pipeline needs none installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from penstock.spec.fields import is_number, is_whole
from penstock.spec.problems import Problem, shown, suggestion

ENGINES = ("mock", "transformers", "vllm", "sentence-transformers", "openai")
EMBEDDING_ENGINES = frozenset({"mock", "sentence-transformers", "vllm", "openai"})
MOCK_PREFIX = "mock:"


@dataclass(frozen=True)
class MockOption:
    kind: Literal["count", "number", "whole", "text"]
    answers: bool = False  # whether it changes answers

    def fits(self, value: object) -> bool:
        match self.kind:
            case "count":
                return is_whole(value) and value >= 1  # type: ignore[operator]
            case "number":
                return is_number(value) and value >= 0  # type: ignore[operator]
            case "whole":
                return is_whole(value)
            case "text":
                return isinstance(value, str) and value != ""

    @property
    def expectation(self) -> str:
        return {
            "count": "a whole number of at least 1",
            "number": "a number of at least 0",
            "whole": "a whole number",
            "text": "text",
        }[self.kind]


MOCK_OPTIONS: dict[str, MockOption] = {
    "slots": MockOption("count"),
    "ms_per_row": MockOption("number"),
    "ms_per_token": MockOption("number"),
    "load_ms": MockOption("number"),
    "seed": MockOption("whole", answers=True),
    "fail_on": MockOption("text"),
    "crash_on": MockOption("text"),
    "hang_on": MockOption("text"),
    "oom_over_tokens": MockOption("count"),
    "wake_ms": MockOption("number"),
    "load_oom_over_seqs": MockOption("count"),
    "eos_median_tokens": MockOption("number", answers=True),
    "eos_sigma": MockOption("number", answers=True),
}


def mock_problems(options: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the engine_options of a mock model."""
    for name, value in options.items():
        path = ("engine_options", name)
        option = MOCK_OPTIONS.get(name)
        if option is None:
            yield Problem(path, f"unknown option '{name}' of the mock engine{suggestion(name, MOCK_OPTIONS)}")
        elif not option.fits(value):
            yield Problem(path, f"'{name}': expected {option.expectation}, got {shown(value)}")


# Options that do not change answers: how much memory, how many at once, where, how loud. Whatever is not named here
# counts as changing answers, so that a resume errs on the side of asking.
PLACEMENT_OPTIONS: dict[str, frozenset[str]] = {
    "vllm": frozenset(
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
    "transformers": frozenset({"kv_cache_gb", "max_num_batched_tokens", "max_num_seqs"}),
    "sentence-transformers": frozenset({"max_num_batched_tokens", "max_num_seqs"}),
    "openai": frozenset(
        {
            "api_key",
            "api_key_env",
            "concurrency",
            "headers",
            "headers_env",
            "patience_s",
            "retries",
            "start_patience_s",
            "timeout_s",
        }
    ),
}


def changes_answers(engine: str, option: str) -> bool:
    """Whether an engine option belongs to a model's answer identity."""
    if engine == "mock":
        return MOCK_OPTIONS[option].answers
    if engine == "auto":
        return all(option not in names for names in PLACEMENT_OPTIONS.values())
    return option not in PLACEMENT_OPTIONS.get(engine, frozenset())
