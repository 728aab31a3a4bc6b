"""From the reference of a model to the facts that the planner needs."""

from __future__ import annotations

from pathlib import Path

from penstock.errors import PlanError
from penstock.planner.model import Layer, ModelFacts, Weights, weight_rates
from penstock.planning.read.attention import Kept, kept_of
from penstock.planning.read.config import ModelConfig
from penstock.planning.read.folder import Checkpoint, read_folder
from penstock.planning.read.hub import read_hub
from penstock.planning.read.quantization import Stored, stored_quantization
from penstock.planning.read.shapes import Dimensions, computed_layers, dimensions, is_encoder, vocabulary_weights
from penstock.planning.read.tensors import Parts, sort_tensors

__all__ = ["KNOWN_TYPES", "facts_of", "read_model_facts"]

# Types whose arithmetic here was checked against published sizes or against their implementation.
KNOWN_TYPES = frozenset(
    {"llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3",
     "gemma3_text", "deepseek_v2", "deepseek_v3", "phi3", "olmo2", "granite", "smollm3", "gpt2", "bert", "roberta",
     "xlm-roberta", "mpnet"}
)  # fmt: skip
LOCAL_BEGINNINGS = ("/", "./", "../", "~")
NEAR = 0.02  # by which a size computed from config.json may miss the index before it is reported


def read_model_facts(ref: str, revision: str | None = None) -> ModelFacts:
    """The facts of a local folder, or of a model on the hub (its local cache first).

    Raises PlanError with the fix: no such folder, no config.json, no weights, a damaged header, no network.
    """
    folder = Path(ref).expanduser()
    if folder.is_dir():
        return facts_of(ref, read_folder(folder))
    if folder.is_file():
        raise PlanError("is a file; give the folder that holds config.json and the weights", where=ref)
    if ref.startswith(LOCAL_BEGINNINGS):
        raise PlanError("no such folder", where=ref)
    return facts_of(ref, read_hub(ref, revision))


def facts_of(ref: str, checkpoint: Checkpoint) -> ModelFacts:
    """From a configuration and what is known of the weights."""
    config = checkpoint.config
    sizes, stored = dimensions(config), stored_quantization(config)
    kept = kept_of(config, sizes)
    if checkpoint.tensors is not None:
        parts, doubts = _from_tensors(checkpoint, sizes), checkpoint.doubts
    else:
        parts, doubts = _computed(checkpoint, sizes, stored)
    known = config.model_type in KNOWN_TYPES and not kept.doubts
    confidence = "exact" if checkpoint.tensors is not None else "estimated"
    if not known:
        confidence = "unknown architecture"
        name = config.model_type or config.architecture
        doubts += kept.doubts or (f"'{name}' is not an architecture that this version knows: KV cache as usual",)
    return _assembled(ref, config, sizes, stored, kept, parts, confidence, doubts)


def _from_tensors(checkpoint: Checkpoint, sizes: Dimensions) -> Parts:
    assert checkpoint.tensors is not None
    parts = sort_tensors(checkpoint.tensors, sizes.layers)
    if not any(layer.divided != Weights() for layer in parts.layers):
        # Names of no known pattern: what is there is dealt to the layers evenly.
        each = _divided(parts.other, sizes.layers)
        parts.layers, parts.other = tuple(Layer(each) for _ in range(sizes.layers)), Weights()
    return parts


def _divided(weights: Weights, layers: int) -> Weights:
    return Weights(weights.linear // layers, weights.plain // layers, weights.packed // layers)


def _computed(checkpoint: Checkpoint, sizes: Dimensions, stored: Stored | None) -> tuple[Parts, tuple[str, ...]]:
    """From config.json; where the index knows the sum, it stands, and the difference lies outside the layers."""
    config, doubts = checkpoint.config, checkpoint.doubts
    embedding, head = vocabulary_weights(config, sizes)
    parts = Parts(computed_layers(config, sizes, stored), embedding, head, Weights(plain=sizes.hidden))
    if stored is not None and not stored.certain:
        doubts += (f"the quantization {stored.label} is not one that this version knows",)
    if checkpoint.total_bytes is None:
        return parts, doubts
    parts.stored_bytes = checkpoint.total_bytes
    computed = _total(parts).size_bytes(*weight_rates(config.dtype or "bfloat16", None))
    missing = checkpoint.total_bytes - computed
    if missing > 0 and config.whole("num_nextn_predict_layers", default=0):
        parts.unloaded_bytes, missing = missing, 0
    elif missing > 0:
        parts.other += Weights(packed=missing)
    if abs(missing) > NEAR * checkpoint.total_bytes:
        doubts += (
            f"the index gives {checkpoint.total_bytes / 1e9:,.1f} GB, config.json of {computed / 1e9:,.1f} GB; "
            f"planned with the larger",
        )
    return parts, doubts


def _total(parts: Parts) -> Weights:
    total = parts.embedding + parts.head + parts.other
    for layer in parts.layers:
        total += layer.divided + layer.copied
    return total


def _assembled(
    ref: str,
    config: ModelConfig,
    sizes: Dimensions,
    stored: Stored | None,
    kept: Kept,
    parts: Parts,
    confidence: str,
    doubts: tuple[str, ...],
) -> ModelFacts:
    if parts.unloaded_bytes:
        note = f"{parts.unloaded_bytes / 1e9:.1f} GB of layers for next-token prediction are not loaded"
        doubts += (note,)
    tied = sizes.tied or (parts.head == Weights() and not is_encoder(config))
    return ModelFacts(
        ref=ref,
        architecture=config.architecture,
        confidence=confidence,  # type: ignore[arg-type]
        layers=parts.layers,
        embedding=parts.embedding,
        head=Weights() if tied else parts.head,
        other=parts.other,
        tied=tied,
        hidden=sizes.hidden,
        intermediate=sizes.intermediate,
        heads=sizes.heads,
        kv_heads=0 if is_encoder(config) else sizes.kv_heads,
        head_dim=sizes.head_dim,
        vocabulary=sizes.vocabulary,
        windows=kept.windows,
        latent=kept.latent,
        state_layers=kept.states,
        experts=sizes.experts,
        experts_per_token=sizes.experts_per_token,
        expert_intermediate=sizes.expert_intermediate,
        stored_dtype=config.dtype or parts.float_dtype or "bfloat16",
        quantization=stored.label if stored else None,
        group_size=stored.group_size if stored else 0,
        max_position_embeddings=sizes.max_positions,
        stored_bytes=parts.stored_bytes,
        doubts=doubts,
    )
