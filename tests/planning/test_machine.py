"""This machine: NUMA nodes, what others hold of a GPU, and models on the hub without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import PlanError
from penstock.executors.binding import Gpu
from penstock.planning import machine
from penstock.planning.read.facts import read_model_facts

GB = 10**9


def numa_node(folder: Path, number: int, cores: str, memory_kb: int) -> None:
    (folder / f"node{number}").mkdir()
    (folder / f"node{number}" / "cpulist").write_text(cores + "\n")
    (folder / f"node{number}" / "meminfo").write_text(
        f"Node {number} MemTotal:   {memory_kb} kB\nNode {number} X: 1 kB\n"
    )


def test_numa_nodes_share_what_may_be_used(tmp_path: Path) -> None:
    numa_node(tmp_path, 0, "0-3,8", 1_000_000)
    numa_node(tmp_path, 1, "4-7", 1_000_000)
    numa_node(tmp_path, 2, "", 1_000_000)
    found = machine.numa_domains([0, 1, 2, 4, 8], tmp_path, 1_024_000_000)
    assert [domain.cores for domain in found] == [(0, 1, 2, 8), (4,)]
    assert [domain.memory_bytes for domain in found] == [512_000_000, 512_000_000]


def test_without_numa_there_is_one_domain(tmp_path: Path) -> None:
    (domain,) = machine.numa_domains([0, 1], tmp_path / "none", 8 * GB)
    assert (domain.cores, domain.memory_bytes) == ((0, 1), 8 * GB)


def test_gpus_of_two_kinds_one_of_them_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        Gpu(0, "GPU-a", "NVIDIA H100", 80 * GB, GB, "0"),
        Gpu(2, "GPU-b", "NVIDIA H100", 80 * GB, 30 * GB, "2"),
        Gpu(5, "GPU-c", "NVIDIA L4", 24 * GB, 0, "GPU-c"),
    ]
    monkeypatch.setattr(machine, "gpus", lambda: found)
    here = machine.local_cluster("pc")
    assert [(node.name, node.devices, node.used) for node in here.nodes] == [("pc", 2, (1,)), ("pc", 1, ())]
    assert [node.device(0) for node in here.nodes] == ["pc/gpu:0", "pc/gpu:GPU-c"]
    (note,) = here.notes
    assert "GPU 2 (NVIDIA H100)" in note and "30.0 GB" in note and "nvidia-smi" in note


def test_this_machine_has_cores_and_memory() -> None:
    (node, *_) = machine.local_cluster().nodes
    assert node.cpus >= 1 and (node.devices or node.domains[0].memory_bytes > GB // 4)


def test_the_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        PlanError,
        match=r"is not a local folder, and the hub can't be reached .*hf download "
        "some/model",
    ):
        read_model_facts("some/model")


def test_a_name_that_no_hub_has(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(PlanError, match="check the name"):
        read_model_facts("not a//name")
