"""One Ray cluster of several nodes on this machine for all tests here. Its GPUs are numbers, which is what placement
needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.executors.ray_cluster import nodes

GPUS = (6, 2, 8)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {"num_cpus": 2, "num_gpus": 0, "include_dashboard": False, "_system_config": quick}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for gpus in GPUS:
        cluster.add_node(num_cpus=2, num_gpus=gpus)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error", namespace="penstock")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="session")
def ray(cluster: Any) -> Any:
    import ray

    return ray


@pytest.fixture
def reserve(ray: Any) -> Iterator[Callable[[str, int], None]]:
    """Take devices of a node away, as another job would."""
    from ray.util.placement_group import placement_group, remove_placement_group

    groups = []
    all_of_them = {node.id: node.gpus for node in nodes(ray) if node.gpus}
    wait_for_count(ray, all_of_them)
    left = dict(all_of_them)

    def reserve(node: str, gpus: int) -> None:
        groups.append(placement_group([{"GPU": gpus}], bundle_label_selector=[{"ray.io/node-id": node}]))
        ray.get(groups[-1].ready(), timeout=120)
        left[node] -= gpus
        wait_for_count(ray, left)

    yield reserve
    for group in groups:
        remove_placement_group(group)
    if groups:
        wait_for_count(ray, all_of_them)


def free_gpus(ray: Any) -> dict[str, int]:
    return {node.id: node.free_gpus for node in nodes(ray) if node.gpus}


def wait_for_count(ray: Any, wanted: dict[str, int]) -> None:
    """Ray's count of what is free trails by some tenths of a second."""
    until = time.monotonic() + 120
    while free_gpus(ray) != wanted:
        assert time.monotonic() < until, f"Ray counts {free_gpus(ray)} free GPUs, not {wanted}"
        time.sleep(0.05)
