"""A model's folder: config.json, and the headers or the index of its safetensors files. No weight is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from penstock.errors import PlanError
from penstock.planning.read.config import ModelConfig, read_config
from penstock.planning.read.headers import Tensor, read_header

__all__ = ["Checkpoint", "read_folder", "read_index"]

INDEX = "model.safetensors.index.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class Checkpoint(NamedTuple):
    """config; tensors: from headers, None where there is only an index; total_bytes: of the index, else None."""

    config: ModelConfig
    tensors: list[Tensor] | None
    total_bytes: int | None = None
    doubts: tuple[str, ...] = ()


def read_folder(folder: Path) -> Checkpoint:
    """Raises PlanError where config.json or all trace of the weights is missing, or a file is damaged."""
    path = folder / "config.json"
    if not path.is_file():
        message = (
            "config.json is missing, so this is not a model folder; give the folder that holds config.json "
            "and the weights"
        )
        raise PlanError(message, where=str(folder))
    config = read_config(path)
    indexed, total = None, None
    if (folder / INDEX).is_file():
        indexed, total = read_index(folder / INDEX)
    names = indexed or sorted(path.name for path in folder.glob("*.safetensors"))
    there = [name for name in names if (folder / name).is_file()]
    if there and len(there) == len(names):
        return _from_headers(config, [folder / name for name in there])
    if indexed is None:
        raise PlanError(_no_weights(folder), where=str(folder))
    missing = f"{len(names) - len(there)} of {len(names)} weight files are missing: planned from the index"
    return Checkpoint(config, None, total, (missing,) if there else ())


def _from_headers(config: ModelConfig, paths: Sequence[Path]) -> Checkpoint:
    tensors: dict[str, Tensor] = {}
    cut = []
    for path in paths:
        header = read_header(path)
        tensors.update((tensor.name, tensor) for tensor in header.tensors)
        if not header.complete:
            cut.append(path.name)
    doubts = (
        (f"{', '.join(cut[:3])}: shorter than the header claims; enough for planning, not for loading",) if cut else ()
    )
    return Checkpoint(config, list(tensors.values()), None, doubts)


def read_index(path: Path) -> tuple[list[str], int | None]:
    """The files that an index names, and the bytes of all weights where it says so. Raises PlanError."""
    try:
        fields: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise PlanError(f"can't be read: {error.strerror}", where=str(path)) from None
    except (ValueError, RecursionError):
        raise PlanError("is not valid JSON; download it again", where=str(path)) from None
    weight_map = fields.get("weight_map") if isinstance(fields, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise PlanError("has no weight_map from tensors to files; download it again", where=str(path))
    metadata = fields.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    names = sorted(set(weight_map.values()))
    outside = next((name for name in names if Path(name).name != name), None)
    if outside is not None:
        raise PlanError(f"names the file {outside!r} outside its folder; download it again", where=str(path))
    return names, int(total) if isinstance(total, (int, float)) and total > 0 else None


def _no_weights(folder: Path) -> str:
    pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if pickled:
        return (
            f"has weights only as {pickled[0]}, a pickle, which Penstock never loads; convert them to safetensors, or "
            f"take a revision of the model that has them"
        )
    gguf = sorted(path.name for path in folder.glob("*.gguf"))
    if gguf:
        return f"has weights only as {gguf[0]}; GGUF is not supported, use the model's safetensors"
    return f"has no weights: no *.safetensors and no {INDEX}; download them, the index is enough to plan"
