"""Whole plans: the rules of layouts, how models share devices, phases, and what is said where nothing fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_kit import GB, dense, large, node, pool

from penstock.planner.cluster import CpuDomain, NodeFacts
from penstock.planner.demand import PoolDemand, Sharing
from penstock.planner.phases import cut
from penstock.planner.plan import make_plan
from penstock.planner.result import Plan


def layouts(plan: Plan, name: str = "writer") -> set[tuple[int, int]]:
    return {(r.tensor_parallel, r.pipeline_parallel) for r in plan.models[name].replicas}


def reasons(plan: Plan, name: str = "writer") -> dict[str, str]:
    return {each.layout: each.reason for each in plan.models[name].rejected}


def devices_of(plan: Plan, name: str) -> int:
    return sum(len(replica.devices) for replica in plan.models[name].replicas)


@pytest.mark.parametrize("memory_gb", [24, 48, 80])
@pytest.mark.parametrize("link", ["nvlink", "pcie"])
def test_what_fits_one_device_is_copied(memory_gb: int, link: str) -> None:
    plan = make_plan([pool(facts=dense())], [node(memory_gb=memory_gb, link=link)])
    assert layouts(plan) == {(1, 1)} and len(plan.models["writer"].replicas) == 8
    assert reasons(plan)["tp=2 pp=1"] == "fits on one device: replicated, not sharded"


def test_a_larger_one_is_divided_inside_a_node() -> None:
    plan = make_plan([pool(facts=large())], [node("a"), node("b")])
    assert layouts(plan) == {(4, 1)} and len(plan.models["writer"].replicas) == 4
    assert reasons(plan)["tp=1 pp=1"] == "weights 141.1 GB, device 80.0 GB"
    assert all(len(replica.nodes) == 1 for replica in plan.models["writer"].replicas)


def test_slow_links_take_stages() -> None:
    plan = make_plan([pool(facts=large())], [node(memory_gb=80, link="pcie", devices=4)])
    assert layouts(plan) == {(1, 4)}
    assert "no fast link" in reasons(plan)["tp=4 pp=1"]


def test_what_no_node_holds_takes_stages_across_nodes() -> None:
    plan = make_plan([pool(facts=large())], [node(name, devices=2) for name in "abcd"])
    assert layouts(plan) == {(2, 2)}
    assert all(len(replica.nodes) == 2 for replica in plan.models["writer"].replicas)


def test_latency_divides_what_would_fit() -> None:
    plan = make_plan([pool(facts=dense(), goal="latency", replicas=1)], [node()])
    assert layouts(plan) == {(8, 1)}


def test_the_cramped_layout_is_taken_where_there_is_no_other() -> None:
    plan = make_plan([pool(facts=large())], [node(devices=2)])
    assert layouts(plan) == {(2, 1)}
    assert any("smaller" in told or "batches of" in told for told in plan.models["writer"].explanation)


def test_two_models_share_evenly_or_by_weight() -> None:
    small, other = pool("small", dense()), pool("other", dense())
    even = make_plan([small, other], [node("a"), node("b")])
    assert (devices_of(even, "small"), devices_of(even, "other")) == (8, 8)
    heavier = make_plan([pool("small", dense(), weight=3.0), other], [node("a"), node("b")])
    assert (devices_of(heavier, "small"), devices_of(heavier, "other")) == (12, 4)
    first = make_plan([small, pool("other", dense(), weight=2.0)], [node("a")], Sharing("priority"))
    assert (devices_of(first, "small"), devices_of(first, "other")) == (1, 7)


def test_models_that_do_not_fit_together_run_in_phases() -> None:
    demands = [pool("a", dense()), pool("b", dense())]
    plan = make_plan(demands, [node(devices=1, memory_gb=24)], uses=["a", "b", "a"])
    assert plan.phases == (("a",), ("b",), ("a",))
    assert [replica.phases for replica in plan.models["a"].replicas] == [(0, 2)]
    assert [replica.phases for replica in plan.models["b"].replicas] == [(1,)]
    assert any("phase" in note for note in plan.notes)


def test_a_phase_is_as_long_as_its_models_fit() -> None:
    assert cut(["a", "b", "a", "c", "a"], lambda names: len(names) <= 2) == (("a", "b"), ("c", "a"))
    assert cut([], lambda names: True) == ()
    assert cut(["a", "b"], lambda names: names != ("b",) and len(names) < 2) is None


def test_a_model_without_devices_fits_any_phase() -> None:
    fake = PoolDemand(name="fake", names=("fake",), engine="mock", needs_devices=False, replicas=3)
    plan = make_plan([pool("a", dense()), fake], [node(devices=1)])
    assert plan.phases == (("a", "fake"),)
    assert [replica.devices for replica in plan.models["fake"].replicas] == [("a/cpu:0",), ("a/cpu:1",), ("a/cpu:2",)]


def test_devices_in_use_and_reserved_stay_free() -> None:
    nodes = [node("a", used=(0, 7)), node("b")]
    plan = make_plan([pool(facts=dense())], nodes, Sharing(reserve_per_node=5))
    assert [replica.devices[0] for replica in plan.models["writer"].replicas] == [
        "a/gpu:1", "b/gpu:0", "b/gpu:1", "b/gpu:2",
    ]  # fmt: skip


def test_two_entries_of_one_machine_reserve_once() -> None:
    nodes = [node("a", 2, 24), node("a", 2, 80, device_ids=("2", "3"))]
    plan = make_plan([pool(facts=dense())], nodes, Sharing(reserve_per_node=3))
    assert [replica.devices for replica in plan.models["writer"].replicas] == [("a/gpu:0",)]


@pytest.mark.parametrize(
    ("demand", "nodes", "need", "would_fit"),
    [
        (pool(facts=large()), [node(devices=2, memory_gb=24)], "141.1 GB", "devices of 80 GB in place of 24.0 GB"),
        (pool(facts=large(), tensor_parallel=16), [node()], "16 devices in one node, the largest node has 8", "auto"),
        (pool(facts=dense(), replicas=9), [node()], "9 devices (9 replicas of tp=1 pp=1)", "replicas: auto"),
        (
            pool(facts=dense(), max_model_len=100_000),
            [node(devices=1, memory_gb=24)],
            "100,000",
            "max_model_len: 29696",
        ),
        (pool(facts=dense(), dtype="float32"), [node(devices=1, memory_gb=32)], "32.1 GB", "dtype: bfloat16"),
        (pool(facts=dense()), [node(devices=1, memory_gb=16)], "16.1 GB for weights", "quantization: fp8"),
        (pool(facts=dense(), tensor_parallel=3), [node()], "does not divide its 32 attention heads", "auto"),
        (pool(facts=dense()), [node(used=tuple(range(8)))], "none is free", "1 node more of 8 x 80.0 GB"),
    ],
)
def test_what_does_not_fit_says_need_have_and_what_would(
    demand: PoolDemand, nodes: list[NodeFacts], need: str, would_fit: str
) -> None:
    plan = make_plan([demand], nodes)
    assert not plan.fits and plan.reason is not None
    assert plan.reason.startswith("writer: ") and need in plan.reason
    assert any(would_fit in told for told in plan.alternatives), plan.alternatives


@pytest.mark.parametrize(
    ("memory_gb", "cache_gb", "would_fit"),
    [
        (21, 8, "writer: engine_options: {kv_cache_gb: 2}"),
        (18, None, "writer: quantization: fp8"),
        (8, None, "32 GB of memory for the models of a machine"),
    ],
)
def test_what_would_fit_on_a_machine_without_devices(memory_gb: float, cache_gb: int | None, would_fit: str) -> None:
    kv_bytes = None if cache_gb is None else cache_gb * 2**30
    plan = make_plan([pool(facts=dense(), kv_bytes=kv_bytes)], [laptop(memory_gb=memory_gb)])
    assert not plan.fits
    assert any(told.startswith(would_fit) for told in plan.alternatives), plan.alternatives


def test_alternatives_stand_in_order_and_are_few() -> None:
    plan = make_plan([pool(facts=large(), max_model_len=131072)], [node(devices=4, memory_gb=48)])
    assert plan.alternatives[0].startswith("writer: max_model_len: ")
    assert 2 <= len(plan.alternatives) <= 6


def laptop(cores: int = 8, memory_gb: float = 32, domains: int = 1) -> NodeFacts:
    each = cores // domains
    return NodeFacts(
        name="pc",
        cpus=cores,
        domains=tuple(
            CpuDomain(tuple(range(n * each, (n + 1) * each)), int(memory_gb * GB / domains)) for n in range(domains)
        ),
    )


def test_cores_are_all_used_and_shared() -> None:
    plan = make_plan([pool("a", dense(), engine="vllm"), pool("b", dense())], [laptop(9, 64)])
    assert [len(replica.devices) for model in plan.models.values() for replica in model.replicas] == [5, 4]
    assert plan.phases == (("a", "b"),)


def test_one_replica_for_each_numa_node() -> None:
    plan = make_plan([pool(facts=dense())], [laptop(16, 128, domains=2)])
    replicas = plan.models["writer"].replicas
    assert [replica.devices[0] for replica in replicas] == ["pc/cpu:0", "pc/cpu:8"]
    assert [len(replica.devices) for replica in replicas] == [8, 8]


def test_cores_without_room_run_in_phases_or_refuse() -> None:
    demands = [pool("a", dense()), pool("b", dense())]
    assert make_plan(demands, [laptop(8, 32)]).phases == (("a",), ("b",))
    assert make_plan(demands, [laptop(1, 64)]).phases == (("a",), ("b",))
    plan = make_plan(demands, [laptop(8, 8)])
    assert not plan.fits and plan.reason is not None and "8.0 GB are left" in plan.reason
    many = make_plan([pool(facts=dense(), replicas=9)], [laptop(8, 999)])
    assert not many.fits and many.reason is not None and "need 9 CPU cores" in many.reason


@given(
    st.lists(st.tuples(st.integers(1, 8), st.sampled_from([16, 24, 80]), st.sampled_from(["nvlink", "pcie"])),
             min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from(["small", "large"]), st.sampled_from([None, 1, 2]), st.floats(0.5, 4)),
             min_size=1, max_size=3),
    st.sampled_from(["even", "priority"]),
)  # fmt: skip
def test_a_plan_never_breaks_its_own_rules(
    machines: list[tuple[int, int, str]], models: list[tuple[str, int | None, float]], strategy: str
) -> None:
    nodes = [node(f"n{index}", *machine) for index, machine in enumerate(machines)]
    demands = [
        pool(f"m{i}", dense() if kind == "small" else large(), replicas=count, weight=weight)
        for i, (kind, count, weight) in enumerate(models)
    ]
    plan = make_plan(demands, nodes, Sharing(strategy))
    if not plan.fits:
        assert plan.reason and not plan.phases
        return
    for demand in demands:
        replicas = plan.models[demand.name].replicas
        for phase in {phase for replica in replicas for phase in replica.phases}:
            here = [replica for replica in replicas if phase in replica.phases]
            assert len(here) == demand.replicas if demand.replicas else here
        for replica in replicas:
            memory = replica.memory
            assert memory.weights + memory.kv + memory.activations + memory.reserve == memory.device
            assert replica.kv_tokens >= (plan.models[demand.name].max_model_len or 0) > 0
            stages = [
                replica.devices[start : start + replica.tensor_parallel]
                for start in range(0, len(replica.devices), replica.tensor_parallel)
            ]
            assert len(stages) == replica.pipeline_parallel
            assert all(len({device.split("/")[0] for device in stage}) == 1 for stage in stages)
    for phase in range(len(plan.phases)):
        taken = [d for m in plan.models.values() for r in m.replicas if phase in r.phases for d in r.devices]
        assert len(taken) == len(set(taken))
