"""Loading a model with transformers: weights, tokenizer, device, threads, and what the replica can hold."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from penstock.distribution import install_command
from penstock.engines.base import EngineLoadError
from penstock.engines.chat import CHAT_OPTIONS, ChatEncoder
from penstock.engines.chat_options import check_options, option
from penstock.engines.sampling import Defaults
from penstock.engines.transformers.info import INFO
from penstock.protocol.messages import EngineConfig

__all__ = ["Loaded", "load_model"]

OPTIONS = (
    *CHAT_OPTIONS,
    "attn_implementation",
    "batching",
    "kv_cache_gb",
    "max_num_batched_tokens",
    "max_num_seqs",
    "tokenizer",
    "trust_remote_code",
    "use_safetensors",
)
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")


class Loaded(msgspec.Struct):
    """A model ready to decode, and its limits. kv_tokens: tokens of keys and values that fit its memory budget."""

    model: Any
    encoder: ChatEncoder
    decode: Callable[..., str]
    defaults: Defaults
    eos_ids: frozenset[int]
    pad_id: int
    max_model_len: int
    slots: int
    kv_tokens: int
    prefill_tokens: int
    batching: str
    takes_positions: bool
    facts: dict[str, str | int | float]


def check_model(options: Mapping[str, Any], urls: Sequence[str]) -> None:
    """Refuse options that the engine does not know, before anything is loaded. Raises EngineLoadError."""
    check_options(options, OPTIONS, "transformers")


def load_model(config: EngineConfig, note: Callable[[str], None]) -> Loaded:
    """Raises EngineLoadError with the cause and the fix."""
    options = config.engine_options
    check_options(options, OPTIONS, "transformers")
    _check_config(config)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import torch
        import transformers
        from safetensors import SafetensorError
    except ImportError as error:
        raise EngineLoadError(
            f"the transformers engine needs torch and transformers ({error}): {install_command('transformers')}",
            "missing_dependency",
        ) from error
    if config.cores:
        torch.set_num_threads(len(config.cores))
    device = _device(config, torch)
    note(f"loading {config.ref} on {device}")
    try:
        model, tokenizer = _from_pretrained(config, transformers, device)
    except torch.OutOfMemoryError as error:
        raise EngineLoadError(f"{config.ref} does not fit on {device}: {error}", "out_of_memory") from error
    except (OSError, ValueError, ImportError, KeyError, SafetensorError) as error:
        raise EngineLoadError(_explain(config, error), "bad_model") from error
    return _loaded(config, model, tokenizer, torch, transformers)


def _check_config(config: EngineConfig) -> None:
    if config.tensor_parallel * config.pipeline_parallel > 1:
        raise EngineLoadError(
            f"the transformers engine runs on one device; tensor_parallel {config.tensor_parallel} and "
            f"pipeline_parallel {config.pipeline_parallel} need engine: vllm",
            "bad_model",
        )


def _device(config: EngineConfig, torch: Any) -> str:
    if not any("gpu" in device.rsplit("/", 1)[-1] for device in config.devices):
        return "cpu"
    if not torch.cuda.is_available():
        raise EngineLoadError(
            f"{', '.join(config.devices)} was given, but this torch ({torch.__version__}) sees no GPU"
        )
    return "cuda:0"


def _from_pretrained(config: EngineConfig, transformers: Any, device: str) -> tuple[Any, Any]:
    options = config.engine_options
    common = {"revision": config.revision, "trust_remote_code": option(options, "trust_remote_code", bool, False)}
    tokenizer = transformers.AutoTokenizer.from_pretrained(option(options, "tokenizer", str, config.ref), **common)
    if not tokenizer.encode("any text"):  # transformers makes an empty one where the files are missing
        raise ValueError("it has no tokenizer; copy tokenizer.json too, or set engine_options: {tokenizer: ...}")
    attention = option(options, "attn_implementation", str, None)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        config.ref,
        dtype=config.dtype,
        use_safetensors=option(options, "use_safetensors", bool, True),
        **({"attn_implementation": attention} if attention else {}),
        **common,
    )
    wanted = config.quantization
    present = (
        getattr(model.config, "quantization_config", None) or {}
    ) and model.config.quantization_config.quant_method
    if wanted is not None and str(present or "") != wanted:
        raise ValueError(
            f"quantization {wanted!r} was requested, the weights have {present or 'none'}; use engine: vllm"
        )
    return model.to(device).eval(), tokenizer


def _explain(config: EngineConfig, error: Exception) -> str:
    text = str(error)
    fix = ""
    if "trust_remote_code" in text:
        fix = "; the model has custom code: engine_options: {trust_remote_code: true} allows it"
    elif "connect" in text or "offline" in text.lower():
        fix = "; no network: set ref to a local folder, or download the model elsewhere and set HF_HOME"
    elif "Safetensor" in type(error).__name__:
        fix = "; its weights are corrupt or incomplete: copy them again"
    elif "safetensors" in text:
        fix = (
            "; only safetensors are read: engine_options: {use_safetensors: false} also loads pickled weights, "
            "from sources you trust"
        )
    revision = f" (revision {config.revision})" if config.revision else ""
    return f"{config.ref}{revision} can't be loaded: {text}{fix}"


def _loaded(config: EngineConfig, model: Any, tokenizer: Any, torch: Any, transformers: Any) -> Loaded:
    options = config.engine_options
    on_gpu = model.device.type == "cuda"
    seqs, tokens = INFO.batch.gpu if on_gpu else INFO.batch.cpu
    slots = option(options, "max_num_seqs", int, config.max_num_seqs or seqs)
    prefill = option(options, "max_num_batched_tokens", int, config.max_num_batched_tokens or tokens)
    if slots < 1 or prefill < 1:
        raise EngineLoadError(
            f"max_num_seqs is {slots} and max_num_batched_tokens {prefill}; both must be at least 1", "bad_model"
        )
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    batching = _batching(options, model, takes_positions)
    facts: dict[str, str | int | float] = {
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "attention": model.config._attn_implementation,
        "batching": batching,
        "threads": torch.get_num_threads(),
    }
    return Loaded(
        model=model,
        encoder=ChatEncoder(tokenizer, options),
        decode=lambda ids: tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        defaults=Defaults.of(model.generation_config.to_diff_dict()),
        eos_ids=_eos_ids(model, tokenizer),
        pad_id=_pad_id(model, tokenizer),
        max_model_len=_context(config, model.config),
        slots=slots,
        kv_tokens=_kv_tokens(model, _kv_gb(config), torch),
        prefill_tokens=prefill,
        batching=batching,
        takes_positions=takes_positions,
        facts=facts,
    )


def _batching(options: dict[str, Any], model: Any, takes_positions: bool) -> str:
    """`slots` where each layer attends to everything and the model takes positions and an attention mask of ours."""
    asked = option(options, "batching", str, "auto")
    if asked not in ("auto", "slots", "cohorts"):
        raise EngineLoadError(f"engine_options: batching is {asked!r}; expected auto, slots or cohorts", "bad_model")
    from transformers.cache_utils import DynamicCache, DynamicLayer

    layers = DynamicCache(config=model.config).layers
    plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    parameters = inspect.signature(model.forward).parameters
    fits = (
        plain
        and takes_positions
        and "logits_to_keep" in parameters
        and model.config._attn_implementation in ("sdpa", "eager")
        and model._supports_attention_backend
        and not model.config.is_encoder_decoder
    )
    if asked == "slots" and not fits:
        raise EngineLoadError(
            "engine_options: batching: slots needs full attention (sdpa or eager); use auto or cohorts", "bad_model"
        )
    return asked if asked != "auto" else ("slots" if fits else "cohorts")


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    found = model.generation_config.eos_token_id
    if found is None:
        found = tokenizer.eos_token_id
    if found is None:
        return frozenset()
    return frozenset(found if isinstance(found, list | tuple) else [found])


def _pad_id(model: Any, tokenizer: Any) -> int:
    """Any token does: padding is masked. Zero is in every vocabulary."""
    for found in (model.generation_config.pad_token_id, tokenizer.pad_token_id):
        if isinstance(found, int) and 0 <= found < model.config.get_text_config(decoder=True).vocab_size:
            return found
    return 0


def _context(config: EngineConfig, model_config: Any) -> int:
    text_config = model_config.get_text_config(decoder=True)
    known = [value for key in _CONTEXT_KEYS if isinstance(value := getattr(text_config, key, None), int) and value > 0]
    longest = known[0] if known else 0
    asked = config.max_model_len
    if asked is not None and longest and asked > longest:
        raise EngineLoadError(f"max_model_len is {asked}; the model's context is {longest}", "bad_model")
    return asked if asked is not None else longest


def _kv_gb(config: EngineConfig) -> float | None:
    """The budget for keys and values that was given, or else planned."""
    given: float | None = option(config.engine_options, "kv_cache_gb", (int, float), None)
    return given if given is not None or config.kv_bytes is None else config.kv_bytes / 10**9


def _kv_tokens(model: Any, budget_gb: float | None, torch: Any) -> int:
    """Tokens that the budget for keys and values holds, by the plain formula 2 x layers x KV heads x head size."""
    text_config = model.config.get_text_config(decoder=True)
    heads = getattr(text_config, "num_key_value_heads", None) or text_config.num_attention_heads
    size = getattr(text_config, "head_dim", None) or text_config.hidden_size // text_config.num_attention_heads
    token_bytes = 2 * text_config.num_hidden_layers * heads * size * model.dtype.itemsize
    if budget_gb is not None:
        budget = budget_gb * 10**9
    elif model.device.type == "cuda":
        budget = torch.cuda.mem_get_info(model.device)[0] * INFO.memory.kv_share
    else:
        budget = INFO.memory.cpu_kv_bytes
    return max(1, int(budget // token_bytes))
