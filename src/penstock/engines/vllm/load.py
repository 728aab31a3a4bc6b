"""Starting vLLM's asynchronous engine: environment, arguments by name, and what the replica then can hold.

Nothing here depends on a version of vLLM: what some versions have and others lack is looked for where it is used.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from penstock.distribution import install_command
from penstock.engines.base import EngineLoadError
from penstock.engines.chat import CHAT_OPTIONS, ChatEncoder
from penstock.engines.chat_options import check_options, option
from penstock.engines.sampling import Defaults
from penstock.protocol.messages import EngineConfig

__all__ = ["StartedVllm", "start_vllm"]

OWN_OPTIONS = (*CHAT_OPTIONS, "kv_cache_gb")
CPU_KV_GB = 1
"""vLLM's own default on a CPU is most of the machine's memory, and there may be another replica beside this one."""

_KEYS_OF_THE_MODEL = {
    "model": "ref",
    "revision": "ref (REF@REVISION)",
    "tokenizer_revision": "ref (REF@REVISION)",
    "dtype": "dtype",
    "quantization": "quantization",
    "max_model_len": "max_model_len",
    "tensor_parallel_size": "tensor_parallel",
    "pipeline_parallel_size": "pipeline_parallel",
}
"""Arguments that the pipeline file has keys of its own for; giving them twice could only contradict."""


class StartedVllm(msgspec.Struct):
    """A running vLLM engine and what it says of itself."""

    engine: Any
    encoder: ChatEncoder
    defaults: Defaults
    max_model_len: int
    slots: int
    kv_tokens: int
    facts: dict[str, str | int | float]


def start_vllm(config: EngineConfig, note: Callable[[str], None]) -> StartedVllm:
    """Blocking. Raises EngineLoadError for what is wrong with the request; what vLLM itself raises passes through."""
    set_environment(config, os.environ)
    try:
        import vllm
        from vllm import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM
    except ImportError as error:
        raise EngineLoadError(
            f"vLLM can't be imported ({error}): {install_command('vllm')}", "missing_dependency"
        ) from error
    arguments = engine_arguments(config, [field.name for field in dataclasses.fields(AsyncEngineArgs)])
    note(f"starting vLLM {vllm.__version__} with {config.ref}")
    try:
        engine_args = AsyncEngineArgs(**arguments)
        # The offline class has the larger batch limits; a bare engine would get 128 sequences and 2,048 tokens.
        engine = AsyncLLM.from_engine_args(engine_args, usage_context=UsageContext.LLM_CLASS)
    except (ValueError, TypeError, OSError) as error:
        raise EngineLoadError(f"vLLM refused {config.ref}: {_explain(error)}", "bad_model") from error
    return _started(config, engine, vllm.__version__)


def set_environment(config: EngineConfig, environment: Any) -> None:
    """Before the import: vLLM and its children read these. What the user has set stays."""
    environment.setdefault("VLLM_NO_USAGE_STATS", "1")
    environment.setdefault("DO_NOT_TRACK", "1")
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    # A host has threads; a forked child would inherit their locks as they happen to be.
    environment.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if on_gpu(config):
        return
    kv_gb = option(config.engine_options, "kv_cache_gb", (int, float), None)
    if "kv_cache_memory_bytes" not in config.engine_options:
        if kv_gb is not None:
            environment["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(kv_gb)))
        elif config.kv_bytes is not None:
            environment["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(config.kv_bytes / 2**30)))
        else:
            environment.setdefault("VLLM_CPU_KVCACHE_SPACE", str(CPU_KV_GB))
    if config.cores:
        environment["VLLM_CPU_OMP_THREADS_BIND"] = _thread_binding(config)  # the plan gave each replica its cores


def on_gpu(config: EngineConfig) -> bool:
    return any("gpu" in device.rsplit("/", 1)[-1] for device in config.devices)


def _thread_binding(config: EngineConfig) -> str:
    """One list of cores per rank, "0-1|2-3" style; vLLM wants as many lists as ranks."""
    ranks = config.tensor_parallel * config.pipeline_parallel
    share, rest = divmod(len(config.cores), ranks)
    if share == 0:
        raise EngineLoadError(f"{ranks} ranks on {len(config.cores)} cores: each rank needs its own core")
    lists, start = [], 0
    for rank in range(ranks):
        stop = start + share + (1 if rank < rest else 0)
        lists.append(",".join(map(str, config.cores[start:stop])))
        start = stop
    return "|".join(lists)


def check_model(options: Mapping[str, Any], urls: Sequence[str]) -> None:
    """Refuse options that are keys of the model, before anything is loaded. Raises EngineLoadError. Which others there
    are only the vLLM that will run can tell."""
    for name, key in _KEYS_OF_THE_MODEL.items():
        if name in options:
            raise EngineLoadError(f"engine_options: {name} has the key {key} of the model; set it there", "bad_model")


def engine_arguments(config: EngineConfig, known: list[str]) -> dict[str, Any]:
    """The keyword arguments of AsyncEngineArgs, whose field names are `known`. Raises EngineLoadError."""
    options = config.engine_options
    check_model(options, ())
    check_options(options, (*known, *OWN_OPTIONS), "vllm")
    arguments: dict[str, Any] = {
        "model": config.ref,
        "dtype": config.dtype,
        "tensor_parallel_size": config.tensor_parallel,
        "pipeline_parallel_size": config.pipeline_parallel,
        "trust_remote_code": False,
        # Of requests without a seed. Replicas with one seed between them would draw the same answers to equal prompts.
        "seed": secrets.randbits(31),
        "disable_log_stats": True,
        "enable_log_requests": False,
    }
    if config.revision is not None:
        arguments |= {"revision": config.revision, "tokenizer_revision": config.revision}
    if config.max_model_len is not None:
        arguments["max_model_len"] = config.max_model_len
    if config.quantization is not None:
        arguments["quantization"] = config.quantization
    else:
        arguments["load_format"] = "safetensors"  # `auto` would fall back to pickled weights
    planned = {
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "gpu_memory_utilization": config.utilization,
    }
    arguments |= {name: value for name, value in planned.items() if value is not None}
    if on_gpu(config):
        if options.get("kv_cache_gb") is not None:
            arguments["kv_cache_memory_bytes"] = int(option(options, "kv_cache_gb", (int, float), 0) * 10**9)
        if config.sleeps:
            arguments["enable_sleep_mode"] = True
    arguments |= {name: value for name, value in options.items() if name not in OWN_OPTIONS}
    missing = sorted(name for name in arguments if name not in known and name in options)
    if missing:
        raise EngineLoadError(f"engine_options: this vLLM has no {', '.join(missing)}", "bad_model")
    return {name: value for name, value in arguments.items() if name in known}


def _explain(error: Exception) -> str:
    text = str(error)
    if "trust_remote_code" in text:
        return f"{text}; engine_options: {{trust_remote_code: true}} runs the model's own code"
    if "safetensors" in text or "Cannot find any model weights" in text:
        return f"{text}; only safetensors are read unless engine_options has load_format: auto"
    return text


def _started(config: EngineConfig, engine: Any, version: str) -> StartedVllm:
    vllm_config = engine.vllm_config
    model_config, cache_config = vllm_config.model_config, vllm_config.cache_config
    tokenizer = _tokenizer(engine)
    block_tokens = int(cache_config.block_size or 0)
    blocks = int(cache_config.num_gpu_blocks or 0)
    # With memories of several kinds a block is no fixed number of tokens: then vLLM's own preemption is the limit.
    plain = not (getattr(model_config, "is_hybrid", False) or getattr(model_config, "is_attention_free", False))
    facts: dict[str, str | int | float] = {
        "vllm": version,
        "dtype": str(model_config.dtype).removeprefix("torch."),
        "block_tokens": block_tokens,
        "kv_blocks": blocks,
        "max_num_batched_tokens": int(vllm_config.scheduler_config.max_num_batched_tokens),
        "prefix_caching": int(bool(cache_config.enable_prefix_caching)),
    }
    attention = getattr(getattr(vllm_config, "attention_config", None), "backend", None)
    if attention is not None:
        facts["attention"] = str(getattr(attention, "name", attention))
    return StartedVllm(
        engine=engine,
        encoder=ChatEncoder(tokenizer, config.engine_options),
        defaults=Defaults.of(_generation_defaults(model_config)),
        max_model_len=int(model_config.max_model_len),
        slots=int(vllm_config.scheduler_config.max_num_seqs),
        kv_tokens=_kv_tokens(cache_config, blocks * block_tokens) if plain else 0,
        facts=facts,
    )


def _kv_tokens(cache_config: Any, of_blocks: int) -> int:
    """What the KV cache holds. Where some layers keep a window only, blocks are of several kinds, and just vLLM itself
    knows; versions that do not tell have blocks of one kind, or leave us the larger figure."""
    tokens = getattr(cache_config, "kv_cache_size_tokens", None)
    return int(tokens) if tokens else of_blocks


def _tokenizer(engine: Any) -> Any:
    for owner in (engine, getattr(engine, "renderer", None), getattr(engine, "input_processor", None)):
        found = getattr(owner, "tokenizer", None)
        if found is not None:
            return found
    raise EngineLoadError(
        "this vLLM engine has no tokenizer (skip_tokenizer_init?); Penstock sends token ids and needs it"
    )


def _generation_defaults(model_config: Any) -> Mapping[str, Any]:
    """What vLLM itself takes from the model's generation config."""
    found = model_config.get_diff_sampling_param()
    return found if isinstance(found, Mapping) else {}
