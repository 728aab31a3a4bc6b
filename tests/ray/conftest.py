"""One Ray cluster of several nodes on this machine for all tests here. Its GPUs are numbers, which is what placement
needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

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

    def reserve(node: str, gpus: int) -> None:
        groups.append(placement_group([{"GPU": gpus}], bundle_label_selector=[{"ray.io/node-id": node}]))
        ray.get(groups[-1].ready(), timeout=30)

    yield reserve
    for group in groups:
        remove_placement_group(group)
