"""What is known of each engine without loading it: one frozen record per engine, `INFO` in engines/FAMILY/info.py.

The specification, the planner, the hosts and `penstock doctor` all read these records, so that an engine is two files:
its adapter and its record. They are found by looking into the folder `engines/`; nothing of an engine is imported.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Literal

from msgspec import Struct

from penstock.distribution import install_command, pip_command
from penstock.errors import ConfigError

__all__ = [
    "BatchDefaults",
    "EngineInfo",
    "EngineOption",
    "MemoryRules",
    "engines",
    "info_of",
    "install_hint",
    "is_installed",
    "missing_modules",
    "model_engines",
]

GIB = 2**30
OPTIONS_OF_TASK = {"generate": "sampling", "embed": "embedding"}
"""Task of a model -> the options that each of its requests has, as `EngineInfo.honours` names them."""
MODEL_TASKS = tuple(OPTIONS_OF_TASK)


class EngineOption(Struct, frozen=True):
    """One of the `engine_options` of an engine that lists all of them.

    kind     count: a whole number of at least 1; number: of at least 0; whole: any whole number; text
    answers  whether it changes answers
    default  a value that is the same as none, for options that change answers
    """

    kind: Literal["count", "number", "whole", "text"]
    answers: bool = False
    default: int | None = None


class MemoryRules(Struct, frozen=True, kw_only=True):
    """How an engine lays out memory, as far as a plan needs it.

    splits          whether it divides a model over devices
    utilization     share of a device that it may fill by default
    block_tokens    tokens of a KV block, and of one on the CPU
    hybrid_kv       whether layers with a sliding window keep only their window
    kv_share        share of what the weights leave that becomes KV cache
    cpu_kv_bytes    KV cache on the CPU where nobody says how much
    cpu_kv_in_gib   whether the KV cache on the CPU is a whole number of GiB; else any size, in GB
    has_kv          whether it keeps a KV cache at all
    process_bytes   resident memory of a replica's processes on the CPU beside weights and KV
    quantizes       schemes with which it quantizes weights while it loads them
    halves_float32  whether `dtype: auto` loads float32 weights as bfloat16
    """

    splits: bool = True
    utilization: float = 0.92
    block_tokens: int = 16
    cpu_block_tokens: int = 128
    hybrid_kv: bool = True
    kv_share: float = 1.0
    cpu_kv_bytes: int = GIB
    cpu_kv_in_gib: bool = False
    has_kv: bool = True
    process_bytes: int = 1_500_000_000
    quantizes: tuple[str, ...] = ()
    halves_float32: bool = False


class BatchDefaults(Struct, frozen=True, kw_only=True):
    """The engine's own limits, each (most requests at once, most tokens in one forward pass).

    gpu        on a GPU; large_gpu: on one with the memory for more, None: as on any GPU
    cpu        for each rank on the CPU
    """

    gpu: tuple[int, int] = (256, 8192)
    large_gpu: tuple[int, int] | None = None
    cpu: tuple[int, int] = (256, 4096)


class EngineInfo(Struct, frozen=True, kw_only=True):
    """One engine.

    name               as `engine:` of a model says it
    adapter            "module:Class" of what implements engines/base.py; empty: planned for, not in this version
    check              "module:function" that refuses options and URLs without loading anything; imports no `modules`
    tasks              what its models do: generate, embed; python: it runs the functions of Python steps
    payloads           kinds of payload that it takes, as protocol/payloads.py names them
    honours            what it can do: options by their tag (sampling, embedding, scoring, classification), the fields
                       of Sampling that not every engine has (structured, labels), and parts: it streams its answers
    modules            packages of others that it imports
    distributions      those whose versions decide how it behaves
    extra              the extra of Penstock that installs them; None: their own names do
    preference         `engine: auto` takes the installed engine with the highest; 0: never
    small_machines     whether it is the one to install where there is no GPU
    devices            whether a replica occupies devices: GPUs, or cores of its own where there are none
    devices_if_split   a replica occupies devices only where its parallelism is given: it stands for a real model
    remote             answers come from the services of `base_url`
    ref_prefix         references that begin with it belong to the engine
    slots              requests at once of an engine without devices, where `slots_option` is not given
    slots_option       the engine option that says how many
    options            all its options, where a pipeline file is checked against them; empty: the engine checks them
    placement_options  those that change no answer. Others count as changing answers, so that a resume errs on the side
                       of asking
    """

    name: str
    adapter: str = ""
    check: str = ""
    tasks: tuple[str, ...] = ("generate",)
    payloads: frozenset[str] = frozenset({"text", "tokens", "messages"})
    honours: frozenset[str] = frozenset({"sampling"})
    modules: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    extra: str | None = None
    preference: int = 0
    small_machines: bool = False
    devices: bool = False
    devices_if_split: bool = False
    remote: bool = False
    ref_prefix: str = ""
    slots: int = 1
    slots_option: str = ""
    memory: MemoryRules = MemoryRules()
    batch: BatchDefaults = BatchDefaults()
    options: Mapping[str, EngineOption] = {}
    placement_options: frozenset[str] = frozenset()

    def runs(self, task: str) -> bool:
        """Whether this version can run models of a task. What `tasks` has beside that is planned for."""
        return self.adapter != "" and OPTIONS_OF_TASK.get(task) in self.honours

    def changes_answers(self, option: str) -> bool:
        """Whether an engine option belongs to a model's answer identity."""
        known = self.options.get(option)
        return known.answers if known is not None else option not in self.placement_options

    def is_default(self, option: str, value: object) -> bool:
        known = self.options.get(option)
        return known is not None and known.default is not None and value == known.default


@functools.cache
def engines() -> Mapping[str, EngineInfo]:
    """The engines by name, in alphabetical order."""
    package = import_module("penstock.engines")  # by name: the records lie in a room above this file
    folders = [entry.name for root in package.__path__ for entry in os.scandir(root) if _has_record(entry)]
    infos: list[EngineInfo] = [import_module(f"{package.__name__}.{folder}.info").INFO for folder in folders]
    return {info.name: info for info in sorted(infos, key=lambda info: info.name)}


def _has_record(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and os.path.exists(os.path.join(entry.path, "info.py"))


def model_engines() -> tuple[EngineInfo, ...]:
    """Those that a model can name."""
    return tuple(info for info in engines().values() if set(info.tasks) & set(MODEL_TASKS))


def info_of(name: str) -> EngineInfo:
    """Raises ConfigError, with the nearest right name."""
    found = engines().get(name)
    if found is None:
        near = difflib.get_close_matches(name, engines(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown engine {name!r}{hint} (known: {', '.join(engines())})")
    return found


def is_installed(info: EngineInfo) -> bool:
    """Whether this interpreter has what the engine needs, without importing it."""
    return info.adapter != "" and not missing_modules(info)


def missing_modules(info: EngineInfo) -> list[str]:
    """The modules that the engine needs and this interpreter lacks."""
    return [module for module in info.modules if not _exists(module)]


def install_hint(info: EngineInfo) -> str:
    """The command that installs what the engine needs; "" where it needs nothing."""
    if info.extra is not None:
        return install_command(info.extra)
    return pip_command(" ".join(info.modules)) if info.modules else ""


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
