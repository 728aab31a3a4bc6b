"""Whole runs on real engines: rows end once, in the right columns, also when an engine's own child is killed."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from run_support import (
    catch,
    committed,
    dead,
    errors,
    everything_below,
    output,
    processes_of,
    run,
    start,
    summary,
    wait_until,
    write_rows,
)

import penstock
from command_server import Command

DOCWRITER = Path(penstock.__file__).parent / "models" / "docwriter"
PROMPT = "Write a one-line docstring for:\ndef Shelf.get_{{ id }}(name, default)"


def engine_pipeline(folder: Path, model: dict[str, Any], commit_every_s: float = 0.5, **step: Any) -> None:
    written = {
        "models": {"writer": {"ref": str(DOCWRITER), **model}},
        "source": {"path": "rows.jsonl"},
        "steps": [
            {
                "generate": {
                    "model": "writer",
                    "prompt": PROMPT,
                    "output": "line",
                    "temperature": 0.0,
                    "meta": True,
                    **step,
                }
            }
        ],
        "sink": {"path": "out"},
        "commit_every_s": commit_every_s,
        "max_dead": 1,
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(written, sort_keys=False))


@pytest.mark.transformers
def test_transformers_on_two_replicas_of_one_core(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    names = [str(number) for number in range(40)]
    names.insert(20, " ".join(["many"] * 3000))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"id": name}) + "\n" for name in names))
    engine_pipeline(
        tmp_path, {"engine": "transformers", "replicas": min(2, len(os.sched_getaffinity(0)))}, max_tokens=24
    )
    assert run(tmp_path) == 0, errors(tmp_path)
    found = output(tmp_path)
    assert [row["id"] for row in found] == [str(number) for number in range(40)]
    assert all(row["line"].strip() and row["line_meta"]["tokens_out"] <= 24 for row in found)
    (on_dead_row,) = dead(tmp_path)
    assert (on_dead_row["code"], on_dead_row["row"]) == ("too_long", 20)
    assert "1024" in on_dead_row["message"], "the limit is named"
    devices = [device for replica in summary(tmp_path)["models"]["writer"]["replicas"] for device in replica["devices"]]
    assert len(devices) == len(set(devices)), "no core serves two replicas"


VLLM_ROWS = 160


def vllm_run(
    folder: Path,
    vllm_python: str,
    replicas: int,
    commit_every_s: float = 0.5,
    *,
    rows: int = VLLM_ROWS,
    max_tokens: int = 96,
    **keys: Any,
) -> Command:
    model = {
        "engine": "vllm",
        "python": vllm_python,
        "dtype": "float32",  # in bfloat16 the rows beside a row may change its tokens
        "progress_timeout_s": 15,
        "replicas": replicas,
        "engine_options": {"kv_cache_gb": 1, "enforce_eager": True, "max_num_seqs": 16},
        **keys,
    }
    folder.mkdir(exist_ok=True)
    write_rows(folder, rows)
    engine_pipeline(folder, model, commit_every_s, max_tokens=max_tokens, ignore_eos=True)
    return start(folder)


def busiest_host(folder: Path) -> int:
    """The host that has answered the most rows: another may still be loading when the run is nearly over."""
    last = json.loads(errors(folder).splitlines()[-1])
    replica = max((each for pool in last["pools"] for each in pool["replicas"]), key=lambda each: each["rows"])
    (host,) = (pid for pid, log in processes_of(folder).items() if log.endswith(replica["id"]))
    return host


@pytest.fixture(scope="module")
def calm_vllm(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on one replica of one rank that nothing disturbs."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    assert vllm_run(folder, vllm_python, 1).wait(timeout=400) == 0, errors(folder)
    return folder


def lines(folder: Path) -> list[str]:
    return [row["line"] for row in output(folder)]


def kill(core: int) -> None:
    os.kill(core, signal.SIGKILL)


def stop(core: int) -> None:
    os.kill(core, signal.SIGSTOP)


def starve(core: int) -> None:
    """Not a byte more of address space than it has."""
    size = psutil.Process(core).memory_info().vms
    resource.prlimit(core, resource.RLIMIT_AS, (size, size))


@pytest.mark.vllm
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("strike", "replicas"),
    [
        (kill, 2),
        (stop, 1),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((kill, 1), (stop, 2), (starve, 2))),
    ],
)
def test_vllm_loses_an_engine_child_in_mid_run(
    tmp_path: Path, vllm_python: str, calm_vllm: Path, strike: Callable[[int], None], replicas: int
) -> None:
    """Its engine core is killed, stopped, or gets no more memory (which it may not need, to go on)."""
    folder = tmp_path / "run"
    replicas = min(replicas, len(os.sched_getaffinity(0)))

    def begin(slower: int) -> Command:
        return vllm_run(folder, vllm_python, replicas, 0.5 / slower)

    process = catch(folder, begin, lambda: 8 < committed(folder) < VLLM_ROWS // 2, "some commits")
    children = psutil.Process(busiest_host(folder)).children(recursive=True)
    cores = [child for child in children if child.name() != "python"]
    assert cores, "vLLM runs its engine core in a child"
    strike(cores[0].pid)
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=400) == 0, errors(folder)
    assert lines(folder) == lines(calm_vllm)
    restarts = sum(replica["restarts"] for replica in summary(folder)["models"]["writer"]["replicas"])
    assert restarts >= 1 or strike is starve
    assert not everything_below(folder)


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_vllm_leaves_no_engine_child_when_all_of_penstock_is_killed(tmp_path: Path, vllm_python: str) -> None:
    """Its engine core has a name of its own, so that whoever looks for Penstock does not find it."""
    folder = tmp_path / "run"
    process = vllm_run(folder, vllm_python, 1)
    wait_until(lambda: committed(folder) > 8 or process.poll() is not None, "some commits", limit_s=400)
    assert process.poll() is None, errors(folder)
    below = psutil.Process(process.pid).children(recursive=True)
    ours = [each for each in below if any("penstock" in word for word in each.cmdline())]
    assert len(ours) == 2, "guardian and host"
    assert len(below) > 3, "vLLM runs its engine core in a child"
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in (process.pid, *(each.pid for each in ours)):
            os.kill(pid, number)
    process.wait()
    wait_until(lambda: not any(each.is_running() for each in below), "all processes to be gone", limit_s=60)
    assert not everything_below(folder)


@pytest.mark.vllm
@pytest.mark.timeout(900)
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two ranks need a core each")
def test_vllm_split_over_two_ranks_answers_like_one(tmp_path: Path, vllm_python: str, calm_vllm: Path) -> None:
    folder = tmp_path / "run"
    process = vllm_run(folder, vllm_python, 1, rows=12, max_tokens=16, tensor_parallel=2)
    assert process.wait(timeout=400) == 0, errors(folder)
    found = lines(folder)
    assert len(found) == 12 and all(found)
    assert [whole[: len(line)] for whole, line in zip(lines(calm_vllm), found, strict=False)] == found
    for ran, ranks in ((calm_vllm, 1), (folder, 2)):
        (replica,) = summary(ran)["models"]["writer"]["replicas"]
        assert len(replica["devices"]) >= ranks
        assert replica["kv_tokens"] == pytest.approx(replica["kv_tokens_planned"], rel=0.02)
    assert not everything_below(folder)


@pytest.mark.transformers
def test_two_models_that_do_not_fit_together_take_turns(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    write_rows(tmp_path, 24)
    sampling = {"temperature": 0.0, "max_tokens": 16}
    texts = {"first": "{{ id }}", "second": "{{ first }}", "third": "{{ second }}"}
    written = {
        # Unequal, and neither leaves room for the other's cache of 2 GB.
        "models": {
            "a": {"ref": str(DOCWRITER), "engine": "transformers", "dtype": "float32"},
            "b": {"ref": str(DOCWRITER), "engine": "transformers", "dtype": "float32", "pool": "apart"},
        },
        "source": {"path": "rows.jsonl"},
        "steps": [
            {"generate": {"model": model, "prompt": f"def part({text}):", "output": output, **sampling}}
            for model, (output, text) in zip("aba", texts.items(), strict=True)
        ],
        "sink": {"path": "out"},
    }
    outputs = {}
    for budget_gb, loads in ((3, (2, 1)), (8, (1, 1))):
        folder = tmp_path / str(budget_gb)
        folder.mkdir()
        write_rows(folder, 24)
        written["resources"] = {"device_memory_gb": budget_gb}
        (folder / "pipeline.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
        assert run(folder) == 0, errors(folder)
        outputs[budget_gb] = output(folder)
        models = summary(folder)["models"]
        assert (models["a"]["loads"], models["b"]["loads"]) == loads
    assert len(outputs[3]) == 24
    assert outputs[3] == outputs[8], "the same answers in three phases as together"
