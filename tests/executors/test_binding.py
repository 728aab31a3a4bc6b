from __future__ import annotations

import pytest

from penstock.errors import ConfigError
from penstock.executors.binding import Gpu, available_cores, environment_for, select_gpus, visible_gpus
from penstock.protocol.messages import EngineConfig

GPUS = [Gpu(index, f"GPU-{letter}{index}", "H", 80 * 10**9) for index, letter in enumerate("aab")]


def chosen(visible: str | None) -> list[tuple[int, str]]:
    return [(gpu.index, gpu.token) for gpu in select_gpus(GPUS, visible)]


def test_all_gpus_where_the_user_says_nothing() -> None:
    assert chosen(None) == [(0, "0"), (1, "1"), (2, "2")]


def test_the_users_choice_and_order_are_kept() -> None:
    assert chosen("2, 0") == [(2, "2"), (0, "0")]
    assert chosen("GPU-b") == [(2, "GPU-b")]
    assert chosen("GPU-a1,2") == [(1, "GPU-a1"), (2, "2")]


@pytest.mark.parametrize("nothing", ["", " ", "-1", "NoDevFiles"])
def test_no_gpu_where_the_user_hides_them(nothing: str) -> None:
    assert chosen(nothing) == []


@pytest.mark.parametrize(
    ("visible", "says"),
    [
        ("3", "'3' matches no GPU of this machine"),
        ("0,x", "'x' matches no GPU of this machine"),
        ("GPU-a", "'GPU-a' matches 2 GPUs"),
        ("0,,1", "'' matches no GPU"),
        ("1,1", "names a GPU twice"),
        ("1,GPU-a1", "names a GPU twice"),
        ("0;1", "'0;1' matches no GPU"),
    ],
)
def test_a_bad_choice_is_refused_with_what_there_is(visible: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        select_gpus(GPUS, visible)


def test_a_machine_without_gpus_ignores_the_variable() -> None:
    assert select_gpus([], "0,1") == []


def test_this_machine_can_be_asked() -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    assert available_cores()


def config(**fields: tuple[int, ...] | tuple[str, ...]) -> EngineConfig:
    return EngineConfig("transformers", "some/model", **fields)  # type: ignore[arg-type]


def test_a_replica_sees_its_gpus_alone() -> None:
    bound = environment_for(config(devices=("2", "GPU-a1")), {})
    assert bound == {"CUDA_VISIBLE_DEVICES": "2,GPU-a1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert environment_for(config(devices=("node/gpu:3",)), {})["CUDA_VISIBLE_DEVICES"] == "3"


def test_the_users_order_of_devices_is_kept() -> None:
    bound = environment_for(config(devices=("0",)), {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})
    assert bound["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


def test_a_replica_on_cores_has_as_many_threads_and_no_gpu() -> None:
    bound = environment_for(config(cores=(4, 5)), {})
    assert bound["CUDA_VISIBLE_DEVICES"] == ""
    assert bound["OMP_NUM_THREADS"] == bound["MKL_NUM_THREADS"] == "2"


def test_nothing_is_bound_where_nothing_is_given() -> None:
    assert environment_for(config(), {}) == {}
