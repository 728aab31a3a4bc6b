"""Plans as a run takes them."""

from __future__ import annotations

import pytest

import penstock as ps
from penstock.errors import PlanError
from penstock.planner.cluster import NodeFacts
from penstock.planning.run_plan import plan
from penstock.spec.load import load_pipeline
from penstock.spec.model import Model
from penstock.spec.pipeline import Pipeline
from penstock.spec.served import ServedModels


def sharded(tensor: int, pipeline: int) -> Pipeline:
    shape = f"tensor_parallel: {tensor}, pipeline_parallel: {pipeline}"
    return load_pipeline(
        f"models: {{m: {{ref: 'mock:m', {shape}}}}}\nsource: {{path: x}}\n"
        "steps: [{generate: {model: m, prompt: '{{ a }}', output: b}}]\nsink: {path: out}\n",
        "test.yaml",
    )


NODES = [NodeFacts(name=name, devices=4, device_memory_bytes=80 * 10**9, link="nvlink", cpus=8) for name in "ab"]


def test_a_replica_in_one_node_is_taken() -> None:
    made = plan(sharded(2, 2), NODES)
    assert [replica.nodes for replica in made.replicas] == [("a",), ("b",)]


def test_a_replica_over_several_nodes_is_refused_before_anything_starts() -> None:
    with pytest.raises(PlanError, match=r"m-0 would span the nodes a, b: tp=2 pp=4 takes 8 devices") as caught:
        plan(sharded(2, 4), NODES)
    assert "penstock plan" in str(caught.value)


def test_ps_plan_is_the_plan_of_a_pipeline() -> None:
    cluster = ps.Cluster(nodes=[ps.Node(name="a", devices=4, device_memory_gb=80)])
    planned = ps.plan(sharded(2, 2), cluster)
    assert planned.fits
    assert [replica.devices for replica in planned.models["m"].replicas] == [
        ("a/gpu:0", "a/gpu:1", "a/gpu:2", "a/gpu:3")
    ]


def test_models_without_a_pipeline_are_loaded_together_and_by_their_own_task() -> None:
    """No step stands for them: each is a pool that is open from the beginning, also one that embeds."""
    models = {
        "writer": Model("mock:w", replicas=2),
        "embedder": Model("mock:e", task="embed"),
        "lazy": Model("mock:l", load="lazy"),
    }
    made = plan(ServedModels(models), NODES)
    assert [pool.name for pool in made.pools] == ["writer", "embedder", "lazy"]
    assert [(replica.id, replica.pool, replica.config.task) for replica in made.replicas] == [
        ("writer-0", 0, "generate"),
        ("writer-1", 0, "generate"),
        ("embedder-0", 1, "embed"),
        ("lazy-0", 2, "generate"),
    ]
    assert [(phase.pools, phase.lazy) for phase in made.phases] == [((0, 1, 2), ())]
    assert not made.pool_of_step and not made.by_value
