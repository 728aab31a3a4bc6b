from __future__ import annotations

from pathlib import Path

import pytest

from penstock.cli import machine
from penstock.cli.doctor import describe
from penstock.cli.machine import Component, GpuReport, MachineReport
from penstock.distribution import install_command


def example(**fields: object) -> MachineReport:
    base: dict[str, object] = {
        "penstock": "0.1.0", "python": "3.11.7", "platform": "Linux x86_64", "cores": 64, "usable_cores": 16,
        "memory_bytes": 128_000_000_000, "free_memory_bytes": 120_000_000_000,
        "gpus": [GpuReport(0, "NVIDIA H100 80GB HBM3", 85_000_000_000, 500_000_000)], "no_gpu_reason": None,
        "engines": [
            Component("mock", True, {}, None),
            Component("transformers", True, {"torch": "2.13.0+cpu", "transformers": "5.23.0"}, None),
            Component("vllm", False, {}, "pip install 'penstock[vllm]'"),
        ],
        "executors": [Component("local", True, {}, None)], "advice": [],
    }  # fmt: skip
    return MachineReport(**(base | fields))  # type: ignore[arg-type]


def test_in_words() -> None:
    assert (
        describe(example(advice=["get a coffee"]))
        == """\
penstock 0.1.0, Python 3.11.7, Linux x86_64

machine
  cores   16 usable of 64
  memory  120 GB free of 128 GB
  GPU 0   NVIDIA H100 80GB HBM3, 500 MB used of 85.0 GB

engines
  mock          ready
  transformers  ready    torch 2.13.0+cpu, transformers 5.23.0
  vllm          missing  pip install 'penstock[vllm]'

executors
  local  ready

to do
  get a coffee"""
    )


def test_no_gpu_says_why() -> None:
    assert "GPUs    none (NVML: no driver)" in describe(example(gpus=[], no_gpu_reason="NVML: no driver"))


def test_advice() -> None:
    assert machine._advice(example()) == [
        f"the vllm engine has a higher throughput on GPUs: {install_command('vllm')}",
        "torch 2.13.0+cpu can't use the GPUs; install a CUDA build of torch",
    ]
    assert machine._advice(example(gpus=[])) == []
    bare = [Component("transformers", False, {}, "pip install 'penstock[transformers]'")]
    assert machine._advice(example(gpus=[], engines=bare)) == [
        f"no installed engine can load a model: {install_command('transformers')}"
    ]


def test_this_machine_is_seen() -> None:
    here = machine.examine()
    assert 1 <= here.usable_cores <= here.cores
    assert 0 < here.free_memory_bytes <= here.memory_bytes
    assert {part.name: part.installed for part in here.engines}["mock"] is True
    assert here.no_gpu_reason is None or not here.gpus


def test_a_quota_of_the_control_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("50000 100000")
    assert machine.usable_cores() == 1
    (tmp_path / "cpu.max").write_text("max 100000")
    assert machine.usable_cores() >= 1
