"""Parameters of a model from its config.json alone, part by part, for the usual decoder.

    attention   q, k, v, o; or MLA's down- and up-projections
    block       gate, up and down projections, of one network or of each expert; a router; shared experts
    vocabulary  embedding and head, perhaps the same matrix

Where weight files are at hand their headers are exact, and this is only their check.
"""

from __future__ import annotations

from penstock.planner.model import Layer, Weights
from penstock.planning.read.config import ModelConfig
from penstock.planning.read.quantization import Stored

__all__ = ["Dimensions", "computed_layers", "dimensions", "is_encoder", "vocabulary_weights"]

ENCODERS = frozenset({"bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "modernbert", "nomic_bert", "electra"})
# Two matrices in place of three: no gate.
UNGATED = frozenset({"gpt2", "gpt_neox", "gptj", "opt", "bloom", "falcon", "phi", "starcoder2", "mpt"}) | ENCODERS
HEAD_NORMS = ("qwen3", "gemma3")  # norms of each head's query and key
# Types that have biases in q, k and v although no field says so.
QKV_BIAS = frozenset({"qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl", "gpt_oss", "starcoder2"})


class Dimensions:
    """The sizes of a model from config.json, under the names of the planner."""

    def __init__(self, config: ModelConfig) -> None:
        self.layers = config.positive("num_hidden_layers", "n_layer", "num_layers", "n_layers")
        self.hidden = config.positive("hidden_size", "n_embd", "d_model", "dim")
        self.heads = config.positive("num_attention_heads", "n_head", "n_heads")
        multi_query = config.flag("multi_query", False)
        self.kv_heads = config.whole(
            "num_key_value_heads", "n_head_kv", "num_kv_heads", default=1 if multi_query else self.heads
        )
        self.head_dim = config.whole("head_dim", default=self.hidden // self.heads) or self.hidden // self.heads
        self.intermediate = config.whole(
            "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", default=4 * self.hidden
        )
        self.vocabulary = config.positive("vocab_size")
        self.max_positions = config.whole(
            "max_position_embeddings", "n_positions", "max_sequence_length", "model_max_length", default=2048
        )
        self.experts = config.whole("num_local_experts", "n_routed_experts", "num_experts", default=0)
        self.experts_per_token = config.whole("num_experts_per_tok", "num_experts_per_token", default=0)
        self.expert_intermediate = 0
        if self.experts:
            self.expert_intermediate = config.whole("moe_intermediate_size", default=self.intermediate)
        self.kv_lora = config.whole("kv_lora_rank", default=0)
        self.rope = config.whole("qk_rope_head_dim", default=0)
        self.nope = config.whole("qk_nope_head_dim", default=self.head_dim)
        self.value = config.whole("v_head_dim", default=self.head_dim)
        self.q_lora = config.whole("q_lora_rank", default=0)
        self.tied = config.flag(
            "tie_word_embeddings", config.model_type in ("gemma", "gemma2", "gemma3", "gemma3_text")
        )


def dimensions(config: ModelConfig) -> Dimensions:
    """Raises PlanError where the fields that every model has are missing."""
    return Dimensions(config)


def is_encoder(config: ModelConfig) -> bool:
    return config.model_type in ENCODERS


def vocabulary_weights(config: ModelConfig, sizes: Dimensions) -> tuple[Weights, Weights]:
    """Embedding and head; a tied head is empty."""
    rows = sizes.vocabulary
    if is_encoder(config):
        rows += sizes.max_positions + config.whole("type_vocab_size", default=2)
        return Weights(plain=rows * sizes.hidden), Weights()
    if config.model_type == "gpt2":
        rows += sizes.max_positions
    head = 0 if sizes.tied else sizes.vocabulary * sizes.hidden
    return Weights(plain=rows * sizes.hidden), Weights(plain=head)


def computed_layers(config: ModelConfig, sizes: Dimensions, stored: Stored | None) -> tuple[Layer, ...]:
    """Every layer. With a stored quantization the linear parameters are packed bytes."""
    first_sparse = config.whole("first_k_dense_replace", default=0)
    every = config.whole("decoder_sparse_step", "moe_layer_freq", default=1) or 1
    dense_only = config.get("mlp_only_layers")
    dense_only = dense_only if isinstance(dense_only, list) else []
    attention, kv, low_rank, biases = _attention(config, sizes)
    layers = []
    for index in range(sizes.layers):
        sparse = bool(sizes.experts) and index >= first_sparse and (index + 1) % every == 0 and index not in dense_only
        block, router = _experts(config, sizes) if sparse else (_network(config, sizes.hidden, sizes.intermediate), 0)
        copied = Weights(plain=_norms(config, sizes) + router) + _linear(low_rank, stored)
        divided = _linear(attention + block, stored) + Weights(plain=biases)
        layers.append(Layer(divided, copied, _linear(kv, stored)))
    return tuple(layers)


def _linear(parameters: int, stored: Stored | None) -> Weights:
    if stored is None:
        return Weights(linear=parameters)
    return Weights(packed=round(parameters * stored.linear_bytes))


def _attention(config: ModelConfig, sizes: Dimensions) -> tuple[int, int, int, int]:
    """Parameters that TP divides, those among them of keys and values, those it copies, and biases."""
    hidden, heads = sizes.hidden, sizes.heads
    if sizes.kv_lora:
        query = heads * (sizes.nope + sizes.rope)
        divided = (sizes.q_lora or hidden) * query
        divided += sizes.kv_lora * heads * (sizes.nope + sizes.value) + heads * sizes.value * hidden
        copied = hidden * (sizes.kv_lora + sizes.rope) + hidden * sizes.q_lora
        return divided, 0, copied, 0
    query, kv = heads * sizes.head_dim, 2 * sizes.kv_heads * sizes.head_dim
    biased = config.flag("attention_bias", config.model_type in QKV_BIAS or is_encoder(config))
    return hidden * (2 * query + kv), hidden * kv, 0, (query + kv + hidden) * biased


def _network(config: ModelConfig, hidden: int, intermediate: int) -> int:
    return (2 if config.model_type in UNGATED else 3) * hidden * intermediate


def _experts(config: ModelConfig, sizes: Dimensions) -> tuple[int, int]:
    """Parameters of all experts and shared ones of a layer, and of its router."""
    each = _network(config, sizes.hidden, sizes.expert_intermediate)
    shared = config.whole("shared_expert_intermediate_size", default=0)
    if not shared:
        shared = config.whole("n_shared_experts", default=0) * sizes.expert_intermediate
    return sizes.experts * each + _network(config, sizes.hidden, shared), sizes.hidden * sizes.experts


def _norms(config: ModelConfig, sizes: Dimensions) -> int:
    count = 4 if config.model_type.startswith(("gemma2", "gemma3")) else 2
    of_heads = 2 * sizes.head_dim if config.model_type.startswith(HEAD_NORMS) else 0
    return count * sizes.hidden + (sizes.q_lora + sizes.kv_lora) + of_heads
