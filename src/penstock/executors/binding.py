"""Which devices a replica may see: environment variables and core sets, fixed before any framework is imported.

`visible_gpus` tells what there is and what the user's CUDA_VISIBLE_DEVICES leaves of it; a replica's own
CUDA_VISIBLE_DEVICES is cut from that. CPU replicas of real engines get disjoint sets of cores, and as many threads.
Without an NVIDIA driver there are no GPUs; that is no error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import msgspec

from penstock.errors import ConfigError
from penstock.protocol.messages import EngineConfig

__all__ = ["Gpu", "available_cores", "environment_for", "gpus", "select_gpus", "visible_gpus"]

VISIBLE = "CUDA_VISIBLE_DEVICES"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_NONE = ("", "-1", "NoDevFiles")  # what CUDA and its launchers write for "no device"


class Gpu(msgspec.Struct, frozen=True):
    """One GPU. index: NVML's, in PCI order. memory_bytes: all of it; used_bytes: taken by others now.

    token   how CUDA_VISIBLE_DEVICES names it: the user's own word where there is one, else the index
    """

    index: int
    uuid: str
    name: str
    memory_bytes: int
    used_bytes: int = 0
    token: str = ""


def visible_gpus(environment: Mapping[str, str] | None = None) -> list[str]:
    """The names by which CUDA_VISIBLE_DEVICES may list what this process may use, in the user's order."""
    return [gpu.token for gpu in gpus(environment)]


def gpus(environment: Mapping[str, str] | None = None) -> list[Gpu]:
    """The GPUs that this process may use, in the user's order.

    Raises ConfigError for a CUDA_VISIBLE_DEVICES that names what is not there.
    """
    environment = os.environ if environment is None else environment
    return select_gpus(_all_gpus(), environment.get(VISIBLE))


def select_gpus(installed: Sequence[Gpu], visible: str | None) -> list[Gpu]:
    """What a value of CUDA_VISIBLE_DEVICES leaves of `installed`: indexes, or UUIDs as far as they are unique."""
    if visible is None:
        return [msgspec.structs.replace(gpu, token=str(gpu.index)) for gpu in installed]
    if visible.strip() in _NONE or not installed:
        return []
    chosen = [_find(installed, token.strip(), visible) for token in visible.split(",")]
    indexes = [gpu.index for gpu in chosen]
    if len(set(indexes)) != len(indexes):
        raise ConfigError(f"{VISIBLE}={visible!r} names a GPU twice; name each once")
    return chosen


def _find(installed: Sequence[Gpu], token: str, visible: str) -> Gpu:
    if token.isdecimal():
        found = [gpu for gpu in installed if gpu.index == int(token)]
    else:
        found = [gpu for gpu in installed if token and gpu.uuid.startswith(token)]
    if len(found) == 1:
        return msgspec.structs.replace(found[0], token=token)
    problem = f"matches {len(found)} GPUs" if found else "matches no GPU of this machine"
    known = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in installed)
    raise ConfigError(f"{VISIBLE}={visible!r}: {token!r} {problem}; there are: {known}")


def _all_gpus() -> list[Gpu]:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package, no driver, no device: all mean that there is no GPU to use
        return []
    try:
        return [_read_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise ConfigError(f"the NVIDIA driver does not respond: {error}; check that `nvidia-smi` works") from None
    finally:
        pynvml.nvmlShutdown()


def _read_gpu(nvml: object, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)  # type: ignore[attr-defined]
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)  # type: ignore[attr-defined]
    uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)  # type: ignore[attr-defined]
    return Gpu(index, _text(uuid), _text(name), int(memory.total), int(memory.used))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def available_cores() -> list[int]:
    """The cores that this process may run on, ascending; as far as a container's quota of CPU time reaches."""
    cores = sorted(os.sched_getaffinity(0))
    quota = _cpu_quota()
    return cores if quota is None else cores[: max(1, quota)]


def _cpu_quota() -> int | None:
    """Whole CPUs that the container's cgroup (version 2) grants, None where it sets no limit."""
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            limit, period = file.read().split()
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) // int(period)


def environment_for(config: EngineConfig, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that bind one replica: to the GPUs of `config.devices`, or to `config.cores` and no GPU.

    Neither given: nothing is bound. devices: names as of `visible_gpus`, or ending in "gpu:NAME".
    """
    environment = os.environ if environment is None else environment
    bound: dict[str, str] = {}
    if config.devices:
        bound[VISIBLE] = ",".join(device.rpartition("/")[2].removeprefix("gpu:") for device in config.devices)
        # NVML counts in PCI order; CUDA's own default, fastest first, would give the same number to another GPU.
        bound["CUDA_DEVICE_ORDER"] = environment.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    elif config.cores:
        bound[VISIBLE] = ""
    if config.cores:
        bound.update(dict.fromkeys(_THREAD_VARIABLES, str(len(config.cores))))
    return bound
