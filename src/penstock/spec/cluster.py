"""A cluster file to a `Cluster`: machines that one need not have, for `plan` and `simulate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field, PlainValidator, model_validator

from penstock.errors import ConfigError
from penstock.spec.base import Spec
from penstock.spec.fields import Name, Natural, OptionalCount, OptionalText, is_number, is_whole, one_of
from penstock.spec.pipeline import place_of
from penstock.spec.problems import InvalidSpec, KeyPath, Problem, config_error, shown, suggestion
from penstock.spec.yaml_text import Document, read_yaml

__all__ = ["LINKS", "Cluster", "Node", "read_cluster"]

LINKS = ("nvlink", "nvswitch", "xgmi", "pcie")
MAX_NODES = 100_000
MAX_DEVICES = 1024  # of one node


def _memory(value: Any) -> float | None:
    if value is None:
        return None
    if is_number(value) and value > 0:
        return float(value)
    raise ValueError(f"expected GB above 0, got {shown(value)}")


def _used(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not all(is_whole(index) and index >= 0 for index in value):
        raise ValueError(f"expected a list of device indexes such as [0, 1], got {shown(value)}")
    if len(set(value)) != len(value):
        raise ValueError(f"expected each device once, got {shown(list(value))}")
    return tuple(sorted(value))


OptionalMemory = Annotated[float | None, PlainValidator(_memory)]


class Node(Spec):
    """One machine, or `count` machines alike.

    name              of the machine; with `count`, the beginning of the names NAME-0, NAME-1, ...
    devices           accelerators in it; 0: models run on its cores, and `cpus` and `memory_gb` are needed
    device_memory_gb  of each device, in GB of 10^9 bytes
    link              between the devices: nvlink | nvswitch | xgmi (fast), pcie (slow)
    device            their name, where an engine treats it apart (A100)
    used              devices taken by others, by index
    cpus, memory_gb   cores and memory of the machine
    """

    name: Name
    count: OptionalCount = None
    devices: Natural = 0
    device_memory_gb: OptionalMemory = None
    link: Annotated[str, one_of(*LINKS)] = "pcie"
    device: OptionalText = None
    cpus: OptionalCount = None
    memory_gb: OptionalMemory = None
    used: Annotated[tuple[int, ...], PlainValidator(_used)] = Field(default=())

    @model_validator(mode="after")
    def _agrees(self) -> Node:
        problems = list(_node_problems(self))
        if problems:
            raise InvalidSpec("Node", problems)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each machine that this entry stands for."""
        if self.count is None:
            return (self.name,)
        return tuple(f"{self.name}-{number}" for number in range(self.count))


def _node_problems(node: Node) -> Iterator[Problem]:
    if node.devices == 0 and not (node.cpus and node.memory_gb):
        message = "node needs 'devices' of at least 1, or 'cpus' and 'memory_gb' for models that run on cores"
        yield Problem(("devices",) if "devices" in node.model_fields_set else (), message)
    if node.devices and node.device_memory_gb is None:
        yield Problem((), "node with devices needs 'device_memory_gb'")
    if node.devices > MAX_DEVICES:
        yield Problem(("devices",), f"'devices': expected at most {MAX_DEVICES} in one node, got {node.devices}")
    beyond = [index for index in node.used if index >= node.devices]
    if beyond and node.devices:
        last = node.devices - 1
        yield Problem(("used",), f"'used': there is no device {beyond[0]}; the devices are 0 to {last}")
    if "/" in node.name:
        yield Problem(("name",), f"'name': '/' separates node and device, so a name has none; got {shown(node.name)}")


def _nodes(value: Any) -> tuple[Node, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"expected a list of nodes, got {shown(value)}")
    if not all(isinstance(node, Node) for node in value):
        raise ValueError(f"expected nodes such as Node(...), got {shown(value)}")
    return tuple(value)


class Cluster(Spec):
    """The machines of a cluster, each name once."""

    nodes: Annotated[tuple[Node, ...], PlainValidator(_nodes)]

    @model_validator(mode="after")
    def _agrees(self) -> Cluster:
        problems = list(_name_problems(self.nodes))
        if problems:
            raise InvalidSpec("Cluster", problems)
        return self


def _name_problems(nodes: tuple[Node, ...]) -> Iterator[Problem]:
    if sum(node.count or 1 for node in nodes) > MAX_NODES:
        yield Problem(("nodes",), f"more than {MAX_NODES:,} nodes")
        return
    seen: dict[str, int] = {}
    for index, node in enumerate(nodes):
        twice = next((name for name in node.names if name in seen), None)
        if twice is not None:
            yield Problem(("nodes", index, "name"), f"two nodes are named '{twice}'; give each a unique name")
        seen.update(dict.fromkeys(node.names, index))


def read_cluster(text: str, file: str) -> Cluster:
    """The cluster that `text` says; `file` is its name for messages.

    Raises ConfigError, its `where` FILE:LINE; further errors follow in the message, one a line.
    """
    document = read_yaml(text, file)
    if not isinstance(document.data, dict):
        if not document.errors:
            raise ConfigError(f"expected a mapping with nodes, got {shown(document.data)}", where=file)
        _raise(document, [])
    problems: list[Problem] = []
    for key in document.data:
        if key not in Cluster.key_names():
            problems.append(Problem((key,), f"unknown key '{key}'{suggestion(key, Cluster.key_names())}"))
    nodes = _read_nodes(document, problems)
    if problems or document.errors:
        _raise(document, problems)
    return _made((), Cluster, {"nodes": nodes}, document)  # type: ignore[no-any-return]


def _read_nodes(document: Document, problems: list[Problem]) -> list[Node]:
    entries = document.data.get("nodes")
    if not isinstance(entries, list) or not entries:
        problems.append(Problem(("nodes",), f"the cluster needs 'nodes', a list of machines; got {shown(entries)}"))
        return []
    nodes = []
    for index, entry in enumerate(entries):
        path: KeyPath = ("nodes", index)
        if not isinstance(entry, dict):
            problems.append(Problem(path, f"expected a node such as {{name: a, devices: 8, ...}}, got {shown(entry)}"))
            continue
        try:
            nodes.append(Node(**entry))
        except InvalidSpec as error:
            problems += [problem.under(*path) for problem in error.problems]
    return nodes


def _made(path: KeyPath, kind: Any, values: dict[str, Any], document: Document) -> Any:
    try:
        return kind(**values)
    except InvalidSpec as error:
        _raise(document, [problem.under(*path) for problem in error.problems])


def _raise(document: Document, problems: list[Problem]) -> None:
    """All errors at once, in the order of the file."""
    entries = [*document.errors]
    for path, message in problems:
        if not any(path[: len(refused)] == refused for refused in document.refused):
            entries.append((place_of(document.places, path) or document.file, message))
    raise config_error(sorted(entries, key=_line))


def _line(entry: tuple[str, str]) -> int:
    number = entry[0].rpartition(":")[2]
    return int(number) if number.isdecimal() else 0
