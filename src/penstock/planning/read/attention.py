"""What a model's layers keep of each token: everything, a sliding window, a latent vector, or a constant state."""

from __future__ import annotations

from typing import NamedTuple

from penstock.planning.read.config import ModelConfig
from penstock.planning.read.shapes import Dimensions, is_encoder

__all__ = ["Kept", "kept_of"]

# Types whose layers keep something else than keys and values; what exactly, the engine decides.
HYBRIDS = frozenset(
    {"mamba", "mamba2", "jamba", "bamba", "zamba2", "falcon_h1", "nemotron_h", "granitemoehybrid", "rwkv",
     "recurrent_gemma", "qwen3_next", "lfm2", "minimax", "plamo2"}
)  # fmt: skip
FULL_TYPES = frozenset({"full_attention", "attention", "global_attention", "full"})
# Every so many layers one attends to everything, where config.json does not list the layers.
DEFAULT_PATTERN = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}


class Kept(NamedTuple):
    """windows: per layer with keys and values, its window or 0. latent: elements a token leaves, with MLA.
    states: layers with a constant state. doubts: what is not certain."""

    windows: tuple[int, ...]
    latent: int = 0
    states: int = 0
    doubts: tuple[str, ...] = ()


def kept_of(config: ModelConfig, sizes: Dimensions) -> Kept:
    if is_encoder(config):
        return Kept(())
    if sizes.kv_lora:
        return Kept((0,) * sizes.layers, sizes.kv_lora + sizes.rope)
    window = config.get("sliding_window")
    window = window if isinstance(window, int) and not isinstance(window, bool) and window > 0 else 0
    listed = config.get("layer_types")
    if isinstance(listed, list) and len(listed) == sizes.layers and all(isinstance(one, str) for one in listed):
        return _listed(listed, window)
    if config.model_type in HYBRIDS:
        doubt = f"{config.model_type} mixes attention with layers of constant state: the engine decides their size"
        return Kept((0,) * sizes.layers, states=0, doubts=(doubt,))
    return Kept(_windows(config, sizes, window))


def _listed(listed: list[str], window: int) -> Kept:
    windows = [window if kind == "sliding_attention" else 0 for kind in listed if _has_keys(kind)]
    states = len(listed) - len(windows)
    strange = sorted({kind for kind in listed if kind != "sliding_attention" and kind not in FULL_TYPES})
    doubts = [f"layers of the kind {', '.join(strange)}: the engine decides their size"] if strange else []
    return Kept(tuple(windows), states=states, doubts=tuple(doubts))


def _has_keys(kind: str) -> bool:
    return kind in FULL_TYPES or kind in ("sliding_attention", "chunked_attention")


def _windows(config: ModelConfig, sizes: Dimensions, window: int) -> tuple[int, ...]:
    if not window or not config.flag("use_sliding_window", True):
        return (0,) * sizes.layers
    pattern = config.whole("sliding_window_pattern", default=DEFAULT_PATTERN.get(config.model_type, 0))
    if pattern > 1:
        return tuple(0 if (index + 1) % pattern == 0 else window for index in range(sizes.layers))
    if config.model_type.startswith("qwen2"):  # the first max_window_layers attend to everything
        full = config.whole("max_window_layers", default=sizes.layers)
        return tuple(0 if index < full else window for index in range(sizes.layers))
    if window >= sizes.max_positions:
        return (0,) * sizes.layers
    return (window,) * sizes.layers
