"""Cluster files: what they say, and every mistake with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.planning.plan import cluster_nodes
from penstock.spec.cluster import Cluster, Node, read_cluster

FILE = "cluster.yaml"


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as told:
        read_cluster(text, FILE)
    return str(told.value).splitlines()


def test_the_example_of_the_contract() -> None:
    text = """\
nodes:
  - {name: a, count: 4, devices: 8, device_memory_gb: 80, link: nvlink, cpus: 64}
  - {name: b, devices: 2, device_memory_gb: 24, link: pcie, used: [0]}
"""
    nodes = cluster_nodes(read_cluster(text, FILE))
    assert [node.name for node in nodes] == ["a-0", "a-1", "a-2", "a-3", "b"]
    assert [node.devices for node in nodes] == [8, 8, 8, 8, 2]
    assert nodes[0].device_memory_bytes == 80_000_000_000 and nodes[0].link == "nvlink" and nodes[0].cpus == 64
    assert nodes[4].used == (0,) and nodes[4].device(1) == "b/gpu:1"


def test_python_and_a_file_make_the_same() -> None:
    made = Cluster(nodes=[Node(name="a", devices=2, device_memory_gb=24)])
    assert made == read_cluster("nodes: [{name: a, devices: 2, device_memory_gb: 24}]", FILE)


def test_a_machine_without_devices() -> None:
    (node,) = cluster_nodes(read_cluster("nodes: [{name: pc, cpus: 4, memory_gb: 16}]", FILE))
    assert node.domains[0].cores == (0, 1, 2, 3) and node.domains[0].memory_bytes == 16_000_000_000


GOOD = "devices: 2, device_memory_gb: 24"
MISTAKES = [
    ("", ["cluster.yaml: expected a mapping with nodes, got nothing"]),
    ("nodes: []", ["cluster.yaml:1: the cluster needs 'nodes'"]),
    ("node: []", ["cluster.yaml:1: unknown key 'node'; did you mean 'nodes'?", "cluster.yaml:1: the cluster needs"]),
    (
        f"nodes:\n  - {{name: a, {GOOD}, lnk: pcie}}",
        ["cluster.yaml:2: unknown key 'lnk' in node; did you mean 'link'?"],
    ),
    (f"nodes:\n  - {{{GOOD}}}", ["cluster.yaml:2: node needs 'name'"]),
    ("nodes:\n  - {name: a, devices: 0}", ["cluster.yaml:2: node needs 'devices' of at least 1"]),
    ("nodes:\n  - {name: a, devices: -1}", ["cluster.yaml:2: 'devices': expected a whole number of at least 0"]),
    ("nodes:\n  - {name: a, devices: 2}", ["cluster.yaml:2: node with devices needs 'device_memory_gb'"]),
    ("nodes:\n  - {name: a, devices: 2, device_memory_gb: -1}", ["cluster.yaml:2: 'device_memory_gb': expected GB"]),
    (f"nodes:\n  - {{name: a, {GOOD}, used: [2]}}", ["cluster.yaml:2: 'used': there is no device 2; the devices are"]),
    (f"nodes:\n  - {{name: a, {GOOD}, used: [0, 0]}}", ["cluster.yaml:2: 'used': expected each device once"]),
    (f"nodes:\n  - {{name: a, {GOOD}, used: 0}}", ["cluster.yaml:2: 'used': expected a list of device indexes"]),
    (f"nodes:\n  - {{name: a, {GOOD}, link: nvlnk}}", ["cluster.yaml:2: 'link': unknown value 'nvlnk'; did you mean"]),
    (f"nodes:\n  - {{name: a/b, {GOOD}}}", ["cluster.yaml:2: 'name': '/' separates"]),
    (f"nodes:\n  - {{name: a, {GOOD}}}\n  - {{name: a, {GOOD}}}", ["cluster.yaml:3: two nodes are named 'a'"]),
    (
        f"nodes:\n  - {{name: a, count: 2, {GOOD}}}\n  - {{name: a-1, {GOOD}}}",
        ["cluster.yaml:3: two nodes are named 'a-1'"],
    ),
    ("nodes:\n  - a", ["cluster.yaml:2: expected a node such as"]),
    ("nodes:\n\t- a", ["cluster.yaml:2: a tab"]),
    (
        "nodes:\n  - {name: a, devices: x, device_memory_gb: 1}\n  - {name: b}",
        ["cluster.yaml:2: 'devices': expected", "cluster.yaml:3: node needs 'devices'"],
    ),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_a_mistake(text: str, expected: list[str]) -> None:
    lines = refused(text)
    assert len(lines) == len(expected), lines
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start), lines


@given(st.text(max_size=60))
def test_no_text_crashes_the_reader(text: str) -> None:
    try:
        assert read_cluster("nodes:\n  - " + text, FILE).nodes
    except ConfigError as error:
        assert error.where is not None
