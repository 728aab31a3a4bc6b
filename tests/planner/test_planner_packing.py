"""Groups of devices on nodes: none spans two, none is refused that has a place, devices are used once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from planner_kit import node, packable, pool

from example_counts import examples
from penstock.planner.cluster import Kind
from penstock.planner.demand import Sharing
from penstock.planner.packing import DeviceGroups, FreeDevices, pack
from penstock.planner.plan import make_plan

SMALL, LARGE = Kind(24, "pcie", ""), Kind(80, "nvlink", "")

nodes = st.lists(st.tuples(st.sampled_from([SMALL, LARGE]), st.integers(1, 8)), min_size=1, max_size=5)
groups = st.lists(
    st.tuples(st.integers(1, 8), st.integers(1, 3), st.sampled_from([(SMALL, LARGE), (LARGE,), (SMALL,)])),
    min_size=1,
    max_size=3,
)


@settings(max_examples=examples(400))
@given(nodes, groups)
def test_the_packer_finds_a_place_exactly_where_there_is_one(
    free: list[tuple[Kind, int]], asked: list[tuple[int, int, tuple[Kind, ...]]]
) -> None:
    items = [DeviceGroups(size, count, kinds) for size, count, kinds in asked]
    placed = pack(items, FreeDevices(free))
    allowed = [
        (size, frozenset(i for i, (kind, _) in enumerate(free) if kind in kinds))
        for size, count, kinds in asked
        for _ in range(count)
    ]
    assert (placed is not None) is packable(sorted(allowed, key=lambda one: -one[0]), [count for _, count in free])
    if placed is not None:
        taken = [0] * len(free)
        for item, found in zip(items, placed, strict=True):
            assert len(found) == item.count
            for index in found:
                assert free[index][0] in item.kinds
                taken[index] += item.size
        assert all(have <= count for have, (_, count) in zip(taken, free, strict=True))


topologies = st.lists(
    st.tuples(st.integers(1, 8), st.sets(st.integers(0, 7), max_size=3)), min_size=1, max_size=5
)  # devices of a node, those in use


@settings(max_examples=examples(300))
@given(
    topologies,
    st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 8]), st.integers(1, 3)), min_size=1, max_size=3),
    st.integers(0, 2),
)
def test_a_plan_tears_no_group_and_refuses_none_that_fits(
    topology: list[tuple[int, set[int]]], asked: list[tuple[int, int]], reserve: int
) -> None:
    machines = [
        node(f"n{index}", devices, used=tuple(sorted(i for i in used if i < devices)))
        for index, (devices, used) in enumerate(topology)
    ]
    demands = [pool(f"p{i}", tensor_parallel=size, replicas=count) for i, (size, count) in enumerate(asked)]
    plan = make_plan(demands, machines, Sharing(reserve_per_node=reserve))
    free = [max(0, machine.devices - len(machine.used) - reserve) for machine in machines]
    everywhere = frozenset(range(len(free)))

    def fits(sizes: list[tuple[int, int]]) -> bool:
        items = sorted(((size, everywhere) for size, count in sizes for _ in range(count)), reverse=True)
        return packable([(size, allowed) for size, allowed in items], free)

    assert plan.fits is all(fits([each]) for each in asked)  # what does not fit together goes in phases
    if plan.fits and fits(asked):
        assert len(plan.phases) == 1
    assert plan.fits or (plan.reason and not any(model.replicas for model in plan.models.values()))
    for phase in range(len(plan.phases)):
        here = [r for model in plan.models.values() for r in model.replicas if phase in r.phases]
        devices = [device for replica in here for device in replica.devices]
        assert len(devices) == len(set(devices))
        for replica in here:
            assert len({device.split("/")[0] for device in replica.devices}) == 1 == len(replica.nodes)
            assert len(replica.devices) == replica.tensor_parallel
    for machine in machines:
        mine = {f"{machine.name}/gpu:{index}" for index in machine.used}
        assert not mine & {d for model in plan.models.values() for r in model.replicas for d in r.devices}
    for model, (_, count) in zip(plan.models.values(), asked, strict=True):
        assert len(model.replicas) == (count if plan.fits else 0)


def test_sizes_that_largest_first_does_not_place() -> None:
    items = [DeviceGroups(4, 2, (LARGE,)), DeviceGroups(3, 4, (LARGE,))]
    placed = pack(items, FreeDevices([(LARGE, 10), (LARGE, 10)]))
    assert placed is not None and sorted(placed[0]) == [0, 1] and sorted(placed[1]) == [0, 0, 1, 1]


def test_devices_that_few_can_use_are_taken_first() -> None:
    items = [DeviceGroups(4, 1, (SMALL, LARGE)), DeviceGroups(2, 2, (LARGE,))]
    assert pack(items, FreeDevices([(LARGE, 4), (SMALL, 4)])) == [[1], [0, 0]]


def test_stages_of_a_pipeline_may_lie_on_several_nodes_but_none_on_two() -> None:
    demand = pool(tensor_parallel=4, pipeline_parallel=3)
    plan = make_plan([demand], [node("a", 6), node("b", 2), node("c", 8)])
    (replica,) = plan.models["writer"].replicas
    assert replica.nodes == ("a", "c")
    stages = [replica.devices[start : start + 4] for start in (0, 4, 8)]
    assert [len({device.split("/")[0] for device in stage}) for stage in stages] == [1, 1, 1]


def test_groups_begin_where_links_are_laid_out() -> None:
    demands = [pool("one", tensor_parallel=1, replicas=2), pool("four", tensor_parallel=4, replicas=1)]
    plan = make_plan(demands, [node("a", 8)])
    assert plan.models["four"].replicas[0].devices == tuple(f"a/gpu:{index}" for index in range(4))
