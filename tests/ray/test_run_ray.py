"""Whole runs on a Ray cluster of several nodes: where groups stand, nodes that die and come back, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.errors import ConfigError, PlanError
from penstock.executors import ray_seats, ray_start
from penstock.executors.ray_cluster import connect, free_map, nodes
from penstock.ledger.view import read_run
from penstock.runtime.run.api import RunOptions, RunResult, run
from penstock.spec.load import load_pipeline

pytestmark = pytest.mark.ray

ROWS = 300
GATE = {"map": {"function": "ray_functions:wait_for_gate", "name": "gate"}}
"""No row reaches the model before the test has opened the gate: how soon a replica is up decides nothing."""


def write(folder: Path, *before: dict[str, Any], **model: Any) -> str:
    gate = {"gate": str(folder / "gate")} if GATE in before else {}
    rows = ({"id": n, "q": f"what is {n}?", **gate} for n in range(ROWS))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = model.pop("engine_options", {})
    generate = {"model": "writer", "prompt": "{{ q }}", "output": "answer", "max_tokens": 3}
    text = yaml.safe_dump(
        {
            "models": {"writer": {"ref": "mock:test", "engine_options": {"slots": 2, **options}, **model}},
            "source": {"path": str(folder / "rows.jsonl")},
            "steps": [*before, {"generate": generate}],
            "sink": {"path": str(folder / "out"), "format": "jsonl"},
            "commit_every_s": 0.2,
        }
    )
    (folder / "pipeline.yaml").write_text(text)
    return text


def go(
    folder: Path, *, executor: str = "ray", listener: Callable[[Any], None] | None = None, **options: Any
) -> RunResult:
    pipeline = load_pipeline((folder / "pipeline.yaml").read_text(), "pipeline.yaml")
    return run(pipeline, RunOptions(executor=executor, listener=listener or (lambda facts: None), **options))


def go_when_all_are_up(folder: Path, *, then: Callable[[Any], None] = lambda facts: None, **options: Any) -> RunResult:
    """A run of a pipeline with a gate, which is opened as soon as every replica is ready; `then` listens from there."""

    def listener(facts: Any) -> None:
        (writer,) = (pool for pool in facts.pools if pool.name == "writer")
        if all(replica.state == "ready" for replica in writer.replicas):
            (folder / "gate").touch()
        if (folder / "gate").exists():
            then(facts)

    return go(folder, listener=listener, interval_s=0.1, **options)


def lines(folder: Path) -> list[dict[str, Any]]:
    parts = sorted((folder / "out" / "data").iterdir())
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def groups(result: RunResult) -> list[list[str]]:
    return [replica["devices"] for replica in result.summary["models"]["writer"]["replicas"]]


def one_node_each(found: list[list[str]], size: int) -> None:
    for devices in found:
        assert len(devices) == size and len({device.partition("/")[0] for device in devices}) == 1
    everything = [device for devices in found for device in devices]
    assert len(set(everything)) == len(everything), "two replicas hold one device"


def test_groups_stand_on_one_node_each(ray: Any, tmp_path: Path) -> None:
    """Nodes with 6, 2 and 8 devices hold three groups of four, and none is torn; one PACK group cut in order tears."""
    write(tmp_path, GATE, tensor_parallel=4, load="eager")
    result = go_when_all_are_up(tmp_path)
    assert result.exit_code == 0 and len(lines(tmp_path)) == ROWS
    assert len(groups(result)) == 3
    one_node_each(groups(result), 4)


def test_devices_that_others_hold_are_left_alone(ray: Any, reserve: Callable[[str, int], None], tmp_path: Path) -> None:
    largest = max(nodes(ray), key=lambda node: node.gpus)
    reserve(largest.id, 5)
    write(tmp_path, GATE, tensor_parallel=2, load="eager")
    result = go_when_all_are_up(tmp_path)
    one_node_each(groups(result), 2)
    assert len(groups(result)) == 3 + 1 + 1  # of 6, 2 and 3 that are free


def test_the_same_output_as_on_this_machine(ray: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write(tmp_path / "a", replicas=2)
    write(tmp_path / "b", replicas=2)
    assert go(tmp_path / "a").exit_code == 0
    assert go(tmp_path / "b", executor="local").exit_code == 0
    assert lines(tmp_path / "a") == lines(tmp_path / "b")


def test_a_node_that_dies_in_mid_run(cluster: Any, ray: Any, tmp_path: Path) -> None:
    """Its rows go elsewhere, its replica starts where there is room, and the output is that of an undisturbed run."""
    extra = cluster.add_node(num_cpus=2, num_gpus=16)
    cluster.wait_for_nodes()
    write(tmp_path, tensor_parallel=16, replicas=1, load="eager", engine_options={"ms_per_row": 80})
    state: dict[str, Any] = {}

    def listener(facts: Any) -> None:
        if facts.out > 20 and "died" not in state:
            state["died"] = True
            cluster.remove_node(extra, allow_graceful=False)
            state["new"] = cluster.add_node(num_cpus=2, num_gpus=16)  # it comes back

    result = go(tmp_path, listener=listener, interval_s=0.1)
    assert result.exit_code == 0, result.facts.reason
    assert state["died"] and [row["id"] for row in lines(tmp_path)] == list(range(ROWS))
    (replica,) = result.summary["models"]["writer"]["replicas"]
    assert replica["restarts"] >= 1 and len(replica["devices"]) == 16
    cluster.remove_node(state["new"])


def test_what_is_left_of_the_cluster_takes_over(cluster: Any, ray: Any, tmp_path: Path) -> None:
    extra = cluster.add_node(num_cpus=2, num_gpus=8)
    cluster.wait_for_nodes()
    write(tmp_path, GATE, tensor_parallel=8, replicas=2, load="eager", engine_options={"ms_per_row": 30})
    died: list[bool] = []

    def strike(facts: Any) -> None:
        if facts.out > 20 and not died:
            died.append(True)
            cluster.remove_node(extra, allow_graceful=False)

    result = go_when_all_are_up(tmp_path, then=strike)
    assert result.exit_code == 0 and died
    assert [row["id"] for row in lines(tmp_path)] == list(range(ROWS))


def test_inside_a_placement_group_of_the_caller(ray: Any, tmp_path: Path) -> None:
    """As a trainer would give it: one-GPU bundles, wherever Ray has put them. Each replica takes two of one node."""
    from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

    group = placement_group([{"GPU": 1, "CPU": 0.01}] * 12, strategy="PACK")
    ray.get(group.ready(), timeout=120)
    try:
        write(tmp_path, GATE, tensor_parallel=2, load="eager")
        result = go_when_all_are_up(tmp_path, placement_group=group)
        assert result.exit_code == 0
        one_node_each(groups(result), 2)
        assert len(groups(result)) == 6
        assert placement_group_table(group)["state"] == "CREATED", "it is the caller's, and stays"
    finally:
        remove_placement_group(group)


def test_a_replica_that_was_never_placed_holds_nothing(ray: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """The run ends before Ray has placed it: the numbers of the plan are not its devices, another may have got them."""
    place = ray_start.RayStart._place

    def late(self: Any, seat: Any) -> None:
        if self._launch.replica == "writer-1":
            self._killed.wait(60)
            raise ray_start.StartAborted("never placed")
        place(self, seat)

    monkeypatch.setattr(ray_start.RayStart, "_place", late)
    write(tmp_path, tensor_parallel=2, replicas=2, load="eager")
    first, second = groups(go(tmp_path))
    assert len(first) == 2 and second == []


def test_a_killed_coordinator_leaves_nothing(cluster: Any, ray: Any, tmp_path: Path) -> None:
    write(tmp_path, replicas=2, engine_options={"ms_per_row": 100})
    command = [sys.executable, "-m", "penstock.cli", "run", "pipeline.yaml", "--executor", "ray", "--display", "none"]
    process = subprocess.Popen(
        [*command, "--ray-address", cluster.address], cwd=tmp_path, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _until(lambda: (tmp_path / "out").is_dir() and _committed(tmp_path) > 5, "some commits")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    _until(lambda: not _hosts(tmp_path), "the hosts to be gone")
    _until(lambda: all(node.free_gpus == node.gpus and node.free_cpus == node.cpus for node in nodes(ray)), "devices")
    done = _committed(tmp_path)
    write(tmp_path, replicas=2)
    assert go(tmp_path).exit_code == 0
    assert [row["id"] for row in lines(tmp_path)] == list(range(ROWS)) and done > 0


def _committed(folder: Path) -> int:
    try:
        return read_run(folder / "out").counts.ended_sources
    except Exception:  # not begun
        return 0


def _hosts(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "fd" / "1").startswith(str(folder / "out")):
                found.append(entry.name)
        except OSError:
            continue
    return found


def _until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 240.0
    while not true():
        assert time.monotonic() < end, f"waited 240 s for {what}"
        time.sleep(0.05)


# ---------------------------------------------------------------- what is refused


def test_more_than_the_cluster_has(ray: Any, tmp_path: Path) -> None:
    write(tmp_path, tensor_parallel=8, replicas=5)
    with pytest.raises(PlanError, match="writer"):
        go(tmp_path)


def test_a_placement_that_stays_pending(
    ray: Any, reserve: Callable[[str, int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The devices are taken between the plan and the start: it ends in time, and says what is free where."""
    monkeypatch.setattr(ray_seats, "PLACEMENT_LIMIT_S", 1.0)
    monkeypatch.setattr(ray_seats, "RETURN_LIMIT_S", 1.0)
    from penstock.planning import targets as places

    planned = places.plan

    def then_taken(*arguments: Any) -> Any:
        made = planned(*arguments)
        for node in nodes(ray):
            if node.free_gpus:
                reserve(node.id, node.free_gpus)
        return made

    monkeypatch.setattr(places, "plan", then_taken)
    write(tmp_path, tensor_parallel=8, replicas=1)
    result = go(tmp_path, check=False)
    assert result.exit_code == 1
    assert "waited 1 s for 8 GPUs" in result.facts.reason and "0 of 8 GPUs" in result.facts.reason


def test_two_runs_that_want_the_same_devices(ray: Any, reserve: Callable[[str, int], None], tmp_path: Path) -> None:
    for node in nodes(ray):
        if node.free_gpus:
            reserve(node.id, node.free_gpus)
    write(tmp_path, tensor_parallel=2, replicas=1)
    with pytest.raises(PlanError):
        go(tmp_path)


def test_an_address_where_nobody_listens() -> None:
    code = (
        "from penstock.executors.ray_cluster import connect\nfrom penstock.errors import ConfigError\n"
        "try:\n    connect('127.0.0.1:1')\nexcept ConfigError as error:\n    print(error.message)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True).stdout
    assert "no Ray cluster responds at 127.0.0.1:1" in told and "ray start --head" in told


@pytest.mark.parametrize(
    ("address", "words"),
    [("head", "HOST:PORT"), ("ray://head:10001", "Ray Client")],
)
def test_an_address_that_can_not_be_meant(monkeypatch: pytest.MonkeyPatch, address: str, words: str) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=words):
        connect(address)


def test_another_version_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(**options: Any) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.40.0\n    Python: 3.11.1")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ConfigError, match=r"another version than the local Ray .*2\.40\.0"):
        connect("auto")


def test_the_map_of_what_is_free(ray: Any) -> None:
    assert "8 of 8 GPUs" in free_map(nodes(ray))
