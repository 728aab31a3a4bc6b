"""Fixtures of well-known models: configuration and tensors by their public shapes, as no network is needed for."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.planner.model import ModelFacts
from penstock.planning.read.config import ModelConfig
from penstock.planning.read.facts import facts_of
from penstock.planning.read.folder import INDEX, Checkpoint
from penstock.planning.read.headers import Tensor

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.json"))
RANGE = re.compile(r"\{(\d+)-(\d+)\}")


@functools.cache
def fixture(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name}.json").read_text())  # type: ignore[no-any-return]


def expanded(pattern: str) -> Iterator[str]:
    """`layers.{0-31}.mlp` -> layers.0.mlp ... layers.31.mlp."""
    parts = RANGE.split(pattern)
    ranges = [range(int(low), int(high) + 1) for low, high in zip(parts[1::3], parts[2::3], strict=True)]
    for numbers in itertools.product(*ranges):
        yield "".join(text + str(number) for text, number in itertools.zip_longest(parts[::3], numbers, fillvalue=""))


def tensors(name: str) -> list[Tensor]:
    return [
        Tensor(each, dtype, tuple(shape))
        for pattern, (dtype, shape) in fixture(name)["tensors"].items()
        for each in expanded(pattern)
    ]


@functools.cache
def facts(name: str) -> ModelFacts:
    """As from the headers of its files."""
    return facts_of(name, Checkpoint(ModelConfig(fixture(name)["config"], name), tensors(name)))


def computed_facts(name: str) -> ModelFacts:
    """As from config.json alone."""
    return facts_of(name, Checkpoint(ModelConfig(fixture(name)["config"], name), None))


def write_folder(folder: Path, name: str, *, total_bytes: int | None = None) -> Path:
    """A model's folder with config.json, and the header of its weights, or an index alone where a total is given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fixture(name)["config"]))
    if total_bytes is not None:
        index = {"metadata": {"total_size": total_bytes}, "weight_map": {"x": "model-00001-of-00001.safetensors"}}
        (folder / INDEX).write_text(json.dumps(index))
        return folder
    offset, header = 0, {}
    for tensor in tensors(name):
        end = offset + tensor.size_bytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    return folder
