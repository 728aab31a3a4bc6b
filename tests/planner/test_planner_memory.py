"""The arithmetic of one device: what stands where, and that it adds up."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from planner_kit import GB, dense, large, pool

from penstock.planner.cluster import Kind
from penstock.planner.demand import BatchLimits, batch_for
from penstock.planner.fit import fit_on
from penstock.planner.kv import kv_layout, layer_bytes_per_token, model_bytes_per_token
from penstock.planner.layout import ParallelLayout, shape_constraint, stage_layers
from penstock.planner.memory import stage_weights_bytes
from penstock.planner.model import Layer, Weights

H100 = Kind(80 * GB, "nvlink", "")


@given(st.integers(1, 130), st.integers(1, 16))
def test_stages_have_all_layers_once_and_differ_by_one(layers: int, stages: int) -> None:
    stages = min(stages, layers)
    bounds = stage_layers(layers, stages)
    sizes = [end - start for start, end in bounds]
    assert bounds[0][0] == 0 and bounds[-1][1] == layers
    assert all(end == start for (_, end), (start, _) in pairwise(bounds))
    assert max(sizes) - min(sizes) <= 1
    if stages > 1:
        assert sizes[-1] == min(sizes)  # the last stage has the head


@given(
    st.sampled_from([1, 2, 4, 8]), st.integers(1, 4), st.sampled_from([16, 24, 40, 48, 80, 141]),
    st.sampled_from([None, 2048, 8192]),
)  # fmt: skip
def test_the_parts_of_a_device_add_up_to_it(ranks: int, stages: int, memory_gb: int, length: int | None) -> None:
    demand = pool(facts=dense(), max_model_len=length)
    fit = fit_on(demand, ParallelLayout(ranks, stages), Kind(memory_gb * GB, "nvlink", ""))
    if fit.fits:
        memory = fit.memory
        assert memory.weights + memory.kv + memory.activations + memory.reserve == memory.device == memory_gb * GB
        assert min(memory.weights, memory.kv, memory.activations) > 0
        assert memory.reserve >= 0.08 * memory.device
        assert fit.max_model_len is not None and fit.kv_tokens >= fit.max_model_len
        assert length is None or fit.max_model_len == length


@given(st.sampled_from([1, 2, 4, 8]), st.integers(1, 8))
def test_dividing_a_model_loses_no_weights(ranks: int, stages: int) -> None:
    facts = large()
    whole = facts.weights_bytes("bfloat16")
    share = stage_weights_bytes(facts, ParallelLayout(ranks, stages), "bfloat16", None)
    assert share * ranks * stages >= whole
    assert share >= whole // (ranks * stages)


def test_more_ranks_than_kv_heads_copy_them() -> None:
    facts = dense(heads=32, kv_heads=2)
    assert layer_bytes_per_token(facts, 1, 2) == 2 * layer_bytes_per_token(facts, 2, 2)
    assert layer_bytes_per_token(facts, 8, 2) == layer_bytes_per_token(facts, 2, 2) == 2 * 128 * 2
    even = stage_weights_bytes(dense(heads=32, kv_heads=8), ParallelLayout(8), "bfloat16", None)
    assert stage_weights_bytes(facts, ParallelLayout(8), "bfloat16", None) == even  # a KV head to each rank in both


def test_the_latent_of_mla_is_not_divided() -> None:
    facts = dense(latent=576)
    assert [layer_bytes_per_token(facts, ranks, 2) for ranks in (1, 2, 8)] == [1152, 1152, 1152]
    assert model_bytes_per_token(facts, 2) == 32 * 1152


def test_bytes_per_token_by_the_book() -> None:
    assert model_bytes_per_token(dense(), 2) == 2 * 32 * 8 * 128 * 2
    assert model_bytes_per_token(large(), 1) == 2 * 80 * 8 * 128


def test_layers_with_a_window_share_blocks_with_the_others() -> None:
    """One in six attends to everything, as in Gemma 3: six groups of five layers."""
    windows = tuple(0 if (index + 1) % 6 == 0 else 1024 for index in range(30))
    facts = dense(layers=30, windows=windows)
    kv = kv_layout(facts, ParallelLayout(), 2, 16, 8192, hybrid=True)
    assert (kv.full_groups, kv.windowed_groups) == (1, 5)
    assert kv.block_bytes == 5 * 16 * layer_bytes_per_token(facts, 1, 2)
    assert kv.blocks_of_request(100_000) == 6250 + 5 * (-(-(1023 + 8192) // 16) + 1)
    plain = kv_layout(facts, ParallelLayout(), 2, 16, 8192, hybrid=False)
    assert plain.tokens(10 * GB, 100_000) < kv.tokens(10 * GB, 100_000)


def test_numbers_of_layers_that_are_near_are_padded() -> None:
    facts = dense(layers=25, windows=(0,) * 13 + (128,) * 12)
    kv = kv_layout(facts, ParallelLayout(), 2, 16, 8192, hybrid=True)
    assert (kv.full_groups, kv.windowed_groups, kv.block_bytes) == (1, 1, 13 * 16 * layer_bytes_per_token(facts, 1, 2))


@given(st.integers(1, 200), st.integers(100, 200_000))
def test_the_longest_request_fits_and_no_longer_one(budget_mb: int, limit: int) -> None:
    windows = tuple(0 if index % 2 else 4096 for index in range(32))
    kv = kv_layout(dense(windows=windows), ParallelLayout(), 2, 16, 8192, hybrid=True)
    budget = budget_mb * 10**7
    length = kv.longest(budget, limit)
    assert length == 0 or kv.request_bytes(length) <= budget
    assert length == limit or kv.request_bytes(length + 1) > budget


@pytest.mark.parametrize(
    ("facts", "layout", "words"),
    [
        (dense(heads=28, kv_heads=4), ParallelLayout(8), "28 attention heads are not divisible by 8"),
        (dense(heads=12, kv_heads=4), ParallelLayout(6), "4 KV heads can neither be divided by 6"),
        (dense(heads=48, hidden=4800, kv_heads=8, vocabulary=32000), ParallelLayout(3), "8 KV heads"),
        (dense(heads=9, hidden=1152, kv_heads=3, vocabulary=32000), ParallelLayout(3), "vocabulary, 32,000 entries"),
        (dense(intermediate=29568, group_size=128), ParallelLayout(8), "cuts a quantization group of 128"),
        (dense(layers=4), ParallelLayout(1, 5), "5 stages, and the model has 4 layers"),
    ],
)
def test_what_a_shape_forbids(facts: object, layout: ParallelLayout, words: str) -> None:
    told = shape_constraint(facts, layout)  # type: ignore[arg-type]
    assert told is not None and words in told


def test_quantization_while_loading_shrinks_linear_layers_only() -> None:
    facts = dense()
    linear = 2 * sum(layer.divided.linear for layer in facts.layers)
    whole = facts.weights_bytes("bfloat16")
    assert facts.weights_bytes("bfloat16", "fp8") == whole - linear // 2

    none = Weights()
    stored = dense(layers=1, head=none, embedding=none, other=none)
    stored = replace(stored, layers=(Layer(Weights(packed=1000)),))
    assert stored.weights_bytes("bfloat16", "fp8") == stored.weights_bytes("float32") == 1000


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Kind(24 * GB, "pcie", ""), BatchLimits(256, 8192)),
        (Kind(80 * GB, "nvlink", ""), BatchLimits(1024, 16384)),
        (Kind(80 * GB, "nvlink", "NVIDIA A100-SXM4-80GB"), BatchLimits(256, 8192)),
        (Kind(192 * GB, "nvlink", "NVIDIA B200"), BatchLimits(1024, 16384)),
        (None, BatchLimits(512, 8192)),
    ],
)
def test_the_engine_s_own_limits(kind: Kind | None, expected: BatchLimits) -> None:
    assert batch_for(pool(facts=dense()), kind, 2) == expected


def test_smaller_batches_where_the_engine_s_leave_no_room() -> None:
    fit = fit_on(pool(facts=large()), ParallelLayout(2), H100)
    assert fit.fits and fit.lowered_batch and fit.batch == BatchLimits(128, 2048)
    asked = fit_on(pool(facts=large(), batch_tokens=16384), ParallelLayout(2), H100)
    assert not asked.fits and asked.constraint is not None and "no room for a KV cache" in asked.constraint


def test_a_kv_cache_that_was_given() -> None:
    fit = fit_on(pool(facts=dense(), kv_bytes=2 * GB), ParallelLayout(), H100)
    assert fit.memory.kv == 2 * GB and fit.kv_tokens == 2 * GB // (131072 * 16) * 16
    told = fit_on(pool(facts=dense(), kv_bytes=70 * GB), ParallelLayout(), H100).constraint
    assert told is not None and "KV cache 70.0 GB as requested" in told
