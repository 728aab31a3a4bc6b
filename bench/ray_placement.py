"""Where groups stand on a real Ray cluster of simulated nodes: ours, and one PACK placement group cut in order.

Each trial draws a topology (2x8, 4x8, 8x8, 6+2+8, or nodes with devices that other jobs hold), a tensor-parallel size
and an order of arrival. The planner and the Ray executor then start mock replicas, each of which reports the node and
the devices that Ray gave it; a group is torn where these lie on two nodes. Beside it, on the same free devices: one
PACK placement group of one-GPU bundles, cut in the order of its bundles, as is common.

Refused: trials in which the planner placed fewer replicas than a brute-force packer can.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import Figure, main, say, work_folder

NODES, DEVICES = 8, 8
MOST_REPLICAS = 6  # started in one trial; more would only take longer
NAIVE_LIMIT_S = 30.0


def topology(draw: random.Random) -> list[int]:
    """Free devices of each of the eight nodes."""
    kind = draw.choice(("2x8", "4x8", "8x8", "6+2+8", "taken"))
    if kind == "taken":
        return [draw.randint(0, DEVICES) for _ in range(NODES)]
    some = {"2x8": [8] * 2, "4x8": [8] * 4, "8x8": [8] * 8, "6+2+8": [6, 2, 8]}[kind]
    free = some + [0] * (NODES - len(some))
    draw.shuffle(free)
    return free


class Trial:
    """The cluster with all but `free` devices of each node held by other jobs."""

    def __init__(self, ray: Any, ids: Sequence[str], free: Sequence[int]) -> None:
        from ray.util.placement_group import placement_group

        self._ray = ray
        self._held = [
            placement_group([{"GPU": DEVICES - count}], bundle_label_selector=[{"ray.io/node-id": number}])
            for number, count in zip(ids, free, strict=True)
            if count < DEVICES
        ]
        ray.get([group.ready() for group in self._held], timeout=60)
        self._wait_until_seen(dict(zip(ids, free, strict=True)))

    def _wait_until_seen(self, free: dict[str, int]) -> None:
        """Ray's count of what is free trails by some tenths of a second; a plan is about the count."""
        from penstock.executors.ray_cluster import nodes

        until_s = time.monotonic() + 30
        while {node.id: node.free_gpus for node in nodes(self._ray) if node.gpus} != free:
            assert time.monotonic() < until_s, "Ray's count of free devices does not become what was reserved"
            time.sleep(0.02)

    def close(self) -> None:
        from ray.util.placement_group import remove_placement_group

        for group in self._held:
            remove_placement_group(group)


def ours(ray: Any, folder: Path, size: int, draw: random.Random) -> tuple[int, int, int]:
    """(groups that could be planned, groups started, groups torn)."""
    from penstock.errors import PlanError
    from penstock.executors.base import Launch, Started
    from penstock.executors.ray import RayExecutor
    from penstock.planning.targets import RayTarget
    from penstock.spec.load import load_pipeline

    text = (
        f"models: {{m: {{ref: 'mock:m', tensor_parallel: {size}}}}}\nsource: {{path: x}}\n"
        "steps: [{generate: {model: m, prompt: '{{ a }}', output: b}}]\nsink: {path: out}\n"
    )
    pipeline = load_pipeline(text, "bench.yaml")
    target = RayTarget(pipeline)
    try:
        planned = target.plan(pipeline)
    except PlanError:
        return 0, 0, 0
    replicas = list(planned.replicas)
    draw.shuffle(replicas)
    chosen = replicas[:MOST_REPLICAS]
    executor = RayExecutor(ray=ray)
    found: list[Started] = []
    try:
        for replica in chosen:
            launch = Launch(replica.id, replica.config, folder / f"{replica.id}.log", nodes=replica.nodes)
            executor.start(launch, 1)
        until_s = time.monotonic() + 120
        while len(found) < len(chosen) and time.monotonic() < until_s:
            time.sleep(0.01)
            for item in executor.news():
                assert isinstance(item, Started), item.tail
                found.append(item)
    finally:
        for started in found:
            if started.connection is not None:
                started.connection.close()
        executor.close()
    assert len(found) == len(chosen), "replicas that did not start"
    assert all(len(started.devices) == size for started in found)
    torn = sum(len({device.partition("/")[0] for device in started.devices}) > 1 for started in found)
    return len(replicas), len(found), torn


def naive(ray: Any, free: int, size: int) -> tuple[int, int]:
    """(groups, groups torn) of one PACK group of one-GPU bundles cut in order."""
    from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

    count = free // size * size
    if not count:
        return 0, 0
    group = placement_group([{"GPU": 1}] * count, strategy="PACK")
    try:
        ray.get(group.ready(), timeout=NAIVE_LIMIT_S)
        nodes = placement_group_table(group)["bundles_to_node_id"]
    finally:
        remove_placement_group(group)
    cut = [{nodes[at + rank] for rank in range(size)} for at in range(0, count, size)]
    return len(cut), sum(len(each) > 1 for each in cut)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0, "include_dashboard": False})
    for _ in range(NODES):
        cluster.add_node(num_cpus=1, num_gpus=DEVICES)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    ids = sorted(node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU"))
    groups = torn = refused = cut = cut_torn = 0
    with work_folder() as folder:
        for number in range(arguments.trials):
            draw = random.Random(number)
            free, size = topology(draw), draw.choice((1, 2, 4, 8))
            trial = Trial(ray, ids, free)
            planned, started, torn_here = ours(ray, folder, size, draw)
            naive_groups, naive_torn = naive(ray, sum(free), size)
            trial.close()
            groups, torn = groups + started, torn + torn_here
            refused += planned < sum(count // size for count in free)
            cut, cut_torn = cut + naive_groups, cut_torn + naive_torn
            if number % 20 == 19:
                say(f"{number + 1} trials: {groups} groups started, {torn} torn; cut in order {cut_torn} of {cut} torn")
    ray.shutdown()
    cluster.shutdown()
    return [
        Figure("ray placement", f"groups torn, of {groups} in {arguments.trials} trials", str(torn), "0", torn == 0),
        Figure("ray placement", "trials with fewer groups than brute force finds", str(refused), "0", refused == 0),
        Figure("ray placement", f"one PACK group cut in order: torn, of {cut}", str(cut_torn)),
    ]


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], trials=200)
