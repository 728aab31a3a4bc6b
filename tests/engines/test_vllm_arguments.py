"""What vLLM is told, without vLLM."""

from __future__ import annotations

import msgspec
import pytest

from penstock.engines.base import EngineLoadError
from penstock.engines.vllm.load import engine_arguments, set_environment
from penstock.protocol.messages import EngineConfig


def environment_of(config: EngineConfig, **had: str) -> dict[str, str]:
    environment = dict(had)
    set_environment(config, environment)
    return environment


@pytest.mark.parametrize(
    ("tensor", "pipeline", "cores", "binding"),
    [(1, 1, (4, 5), "4,5"), (2, 1, (0, 1), "0|1"), (2, 2, (0, 1, 2, 3, 4), "0,1|2|3|4")],
)
def test_each_rank_on_the_cpu_has_cores_of_its_own(
    tensor: int, pipeline: int, cores: tuple[int, ...], binding: str
) -> None:
    config = EngineConfig("vllm", "model", tensor_parallel=tensor, pipeline_parallel=pipeline, cores=cores)
    bound = environment_of(config, VLLM_CPU_OMP_THREADS_BIND="0-63")
    assert bound["VLLM_CPU_OMP_THREADS_BIND"] == binding, "two replicas under one binding would share its cores"


def test_more_ranks_than_cores_are_refused() -> None:
    with pytest.raises(EngineLoadError, match="2 ranks on 1 cores"):
        environment_of(EngineConfig("vllm", "model", tensor_parallel=2, cores=(0,)))


def test_the_planned_cache_is_given_unless_the_user_named_one() -> None:
    planned = EngineConfig("vllm", "model", cores=(0,), kv_bytes=3 * 2**30)
    assert environment_of(planned)["VLLM_CPU_KVCACHE_SPACE"] == "3"
    named = EngineConfig("vllm", "model", cores=(0,), kv_bytes=3 * 2**30, engine_options={"kv_cache_gb": 2})
    assert environment_of(named)["VLLM_CPU_KVCACHE_SPACE"] == "2"


def test_replicas_do_not_draw_alike() -> None:
    config = EngineConfig("vllm", "m")
    first, second = (engine_arguments(config, ["seed"])["seed"] for _ in range(2))
    assert first != second
    given = msgspec.structs.replace(config, engine_options={"seed": 7})
    assert engine_arguments(given, ["seed"])["seed"] == 7
