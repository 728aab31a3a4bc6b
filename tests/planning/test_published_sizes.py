"""Bytes of weights against what the models' publishers say, from headers and from config.json alone."""

from __future__ import annotations

import pytest
from planning_models import NAMES, computed_facts, facts, fixture

from penstock.planner.kv import model_bytes_per_token
from penstock.planner.layout import ParallelLayout
from penstock.planner.memory import stage_weights_bytes

NEAR = 0.02
# A vision tower, a pooler: held whole by a device, and not to be known from the fields that are read.
MORE_THAN_LAYERS = {"gemma-3-27b-it", "all-minilm-l6-v2"}
PREDICTS_TOKENS = {"deepseek-v3"}  # the published size has layers that no engine loads for generation


def loaded(name: str) -> int:
    found = facts(name)
    return found.weights_bytes(found.stored_dtype)


def test_there_are_models_of_all_sorts() -> None:
    assert len(NAMES) >= 12
    assert {facts(name).architecture for name in NAMES} >= {"LlamaForCausalLM", "DeepseekV3ForCausalLM", "BertModel"}
    assert sum(facts(name).experts > 0 for name in NAMES) >= 4
    assert sum(facts(name).quantization is not None for name in NAMES) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_headers_give_the_published_size(name: str) -> None:
    assert facts(name).stored_bytes == pytest.approx(fixture(name)["published_bytes"], rel=NEAR)
    assert facts(name).confidence == "exact"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PREDICTS_TOKENS])
def test_what_is_loaded_is_the_published_size(name: str) -> None:
    assert loaded(name) == pytest.approx(fixture(name)["published_bytes"], rel=NEAR)


def test_layers_for_next_token_prediction_are_not_loaded() -> None:
    assert loaded("deepseek-v3") == pytest.approx(671_000_000_000, rel=NEAR)
    assert any("next-token prediction" in doubt for doubt in facts("deepseek-v3").doubts)


@pytest.mark.parametrize("name", NAMES)
def test_config_alone_comes_near(name: str) -> None:
    found = computed_facts(name)
    assert found.weights_bytes(found.stored_dtype) == pytest.approx(loaded(name), rel=NEAR)
    assert found.confidence == "estimated"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in MORE_THAN_LAYERS])
def test_config_alone_divides_as_the_headers_do(name: str) -> None:
    """What a device of two, four or two stages holds, within a few per cent of the exact tensors."""
    exact, computed = facts(name), computed_facts(name)
    for layout in (ParallelLayout(2), ParallelLayout(4), ParallelLayout(1, 2)):
        shares = [stage_weights_bytes(each, layout, each.stored_dtype, None) for each in (exact, computed)]
        assert shares[1] == pytest.approx(shares[0], rel=NEAR)


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [
        ("llama-3.1-8b", 2 * 32 * 8 * 128 * 2),
        ("llama-3.1-70b", 2 * 80 * 8 * 128 * 2),
        ("qwen3-30b-a3b", 2 * 48 * 4 * 128 * 2),
        ("gemma-3-27b-it", 2 * 62 * 16 * 128 * 2),
        ("deepseek-v3", 61 * (512 + 64) * 2),
        ("llama-2-7b-chat-gptq", 2 * 32 * 32 * 128 * 2),
        ("all-minilm-l6-v2", 0),
    ],
)
def test_kv_cache_of_a_token(name: str, bytes_per_token: int) -> None:
    assert model_bytes_per_token(facts(name), 2) == bytes_per_token


@pytest.mark.parametrize(
    ("name", "full", "windowed", "window"),
    [
        ("mistral-7b-v0.1", 0, 32, 4096),
        ("gemma-2-9b-it", 21, 21, 4096),
        ("gemma-3-1b-it", 4, 22, 512),
        ("gemma-3-27b-it", 10, 52, 1024),
        ("qwen2.5-0.5b-instruct", 24, 0, 0),
        ("mixtral-8x7b-v0.1", 32, 0, 0),
    ],
)
def test_which_layers_have_a_window(name: str, full: int, windowed: int, window: int) -> None:
    windows = facts(name).windows
    assert (windows.count(0), sum(map(bool, windows)), max(windows)) == (full, windowed, window)
