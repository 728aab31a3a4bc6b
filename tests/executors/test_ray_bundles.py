"""Bundles of one node inside a placement group that somebody else made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.executors.ray_bundles import Bundle, choose

bundles = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 4)), max_size=20).map(
    lambda found: [Bundle(number, node, gpus, 1) for number, (node, gpus) in enumerate(found)]
)


@given(found=bundles, gpus=st.integers(1, 8))
def test_they_are_of_one_node_and_as_many_as_needed(found: list[Bundle], gpus: int) -> None:
    taken = choose(found, gpus, 0)
    if taken:
        assert len({bundle.node for bundle in taken}) == 1
        assert sum(bundle.gpus for bundle in taken) == gpus


@given(counts=st.lists(st.integers(0, 8), min_size=1, max_size=6), gpus=st.integers(1, 8))
def test_of_bundles_with_one_device_every_node_gives_what_it_can(counts: list[int], gpus: int) -> None:
    free = [Bundle(0, str(node), 1, 0) for node, count in enumerate(counts) for _ in range(count)]
    free = [bundle._replace(number=number) for number, bundle in enumerate(free)]
    replicas = 0
    while taken := choose(free, gpus, 0):
        free = [bundle for bundle in free if bundle not in taken]
        replicas += 1
    assert replicas == sum(count // gpus for count in counts)


def test_the_fullest_fit_goes_first() -> None:
    free = [Bundle(0, "a", 1, 0), Bundle(1, "a", 1, 0), Bundle(2, "b", 1, 0)]
    assert choose(free, 1, 0) == (Bundle(2, "b", 1, 0),)
    assert choose(free, 0, 1) == ()
