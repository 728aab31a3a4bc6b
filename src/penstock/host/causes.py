"""Why an engine failed to load: the cause itself, never "see above".

Engines wrap their errors, and those with child processes raise no more than a hint that a child printed the reason.
`failure_of` finds the innermost exception that says something; where none does, the last error in the log does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from penstock.engines.base import EngineLoadError
from penstock.errors import MissingDependency, PenstockError
from penstock.protocol.messages import LoadFailed

__all__ = ["cause_lines", "failure_of", "is_device_failure", "is_out_of_memory", "read_tail"]

_LOG_TAIL_BYTES = 64 * 1024

# Messages that point elsewhere instead of telling the cause.
_HINTS = re.compile(
    r"see (the )?(above|root cause|stack ?trace|logs?\b|errors?\b|traceback)|root cause above|above for|"
    r"engine core (initialization|proc\w*) failed|engine core proc\w* died|failed core proc|"
    r"worker proc\w* (initialization )?failed|engine process failed|died unexpectedly|cancelled error",
    re.IGNORECASE,
)
# What the allocators of torch, CUDA and C++ say, and vLLM where its KV cache finds no room.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|cannot allocate memory|can't allocate memory|bad_alloc|not enough memory: you tried"
    r"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|hipErrorOutOfMemory|STATUS_ALLOC_FAILED"
    r"|No available memory for the cache|larger than the available KV\s+cache|less than desired GPU memory utilization",
    re.IGNORECASE,
)

# What CUDA and the driver say of a device that is broken. An illegal access or a failed assertion is not among it: a
# row may be to blame for those.
_DEVICE_FAILURE = re.compile(
    r"uncorrectable ECC|cudaErrorECCUncorrectable|NVRM: Xid|GPU (is lost|has fallen off the bus)|hardware stack error"
    r"|cudaErrorHardwareStackError|unspecified launch failure|cudaErrorLaunchFailure|uncorrectable NVLink error",
    re.IGNORECASE,
)

# "ValueError: text", at the start of a line or after what a logger put before it.
_ERROR_LINE = re.compile(
    r"(?:^|[\s\])])((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Failure|Interrupt|Exit))(?:: (.*\S))?\s*$"
)
_FATAL_LINE = re.compile(
    r"^(Fatal Python error: (?!Aborted).*|Segmentation fault.*|penstock host: .*|out of memory: .*)$"
)
_CRASHED_THREAD = re.compile(r"^Current thread 0x\w+.*\(most recent call first\):$")
_CHAINED = re.compile(r"was the direct cause of the following|During handling of the above exception")


def failure_of(error: BaseException, log_tail: str = "") -> LoadFailed:
    """The message for an engine that raised `error` from `load`; `log_tail` is the end of what it printed."""
    best = _telling(error)
    if best is None:
        lines = cause_lines(log_tail)
        message = lines[-1] if lines else f"{type(error).__name__}: {error}"
        return LoadFailed(_code(error, message), message)
    if isinstance(best, (EngineLoadError, PenstockError)):
        return LoadFailed(_code(best, str(best)), str(best))
    text = str(best).strip()
    message = f"{type(best).__name__}: {text}" if text else type(best).__name__
    return LoadFailed(_code(best, message), message)


def _telling(error: BaseException) -> BaseException | None:
    """The exception of the chain that says most: one that was written for people, else the innermost real one."""
    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, (EngineLoadError, PenstockError)) and not _HINTS.search(str(link)):
            return link
    real = [link for link in chain if str(link).strip() and not _HINTS.search(str(link))]
    if real:
        return real[-1]
    silent = [link for link in chain if not str(link).strip()]
    return silent[-1] if silent and len(silent) == len(chain) else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        if isinstance(link, BaseExceptionGroup) and link.exceptions:
            link = link.exceptions[0]
        elif link.__cause__ is not None:
            link = link.__cause__
        else:
            link = None if link.__suppress_context__ else link.__context__


def _code(error: BaseException, message: str) -> str:
    if isinstance(error, EngineLoadError):
        vague = error.code in ("error", "bad_model")
        return "out_of_memory" if vague and _OUT_OF_MEMORY.search(message) else error.code
    if isinstance(error, (ImportError, MissingDependency)):
        return "missing_dependency"
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(message):
        return "out_of_memory"
    if isinstance(error, PenstockError):
        return "bad_model"
    return "error"


def is_out_of_memory(message: str) -> bool:
    return _OUT_OF_MEMORY.search(message) is not None


def is_device_failure(message: str) -> bool:
    """Whether a device is said to have failed. Running out of its memory is no failure of it."""
    return _DEVICE_FAILURE.search(message) is not None and not is_out_of_memory(message)


def cause_lines(log: str) -> list[str]:
    """The errors that a log tells, oldest first, each as one line; those that only point elsewhere are left out.

    Of a chain of tracebacks the first one counts: it is the cause, and the others wrap it.
    """
    found: list[str] = []
    chained = crashed = False
    for line in log.splitlines():
        fatal = _FATAL_LINE.match(line)
        match = _ERROR_LINE.search(line)
        if fatal:
            found.append(fatal[1])
        elif found and _CRASHED_THREAD.match(line):
            crashed = True
        elif crashed:
            found[-1] += f" ({line.strip()})"  # the innermost call of the thread that crashed
            crashed = False
        elif _CHAINED.search(line):
            chained = True
        elif match:
            text = f"{match[1]}: {match[2]}" if match[2] else match[1]
            if not chained and not _HINTS.search(text) and text not in found:
                found.append(text)
            chained = False
    return found


def read_tail(path: str | os.PathLike[str], start: int = 0, limit_bytes: int = _LOG_TAIL_BYTES) -> str:
    """The end of a log file, from `start` on; "" when it can't be read."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - limit_bytes))
            return file.read(limit_bytes).decode("utf-8", "replace")
    except OSError:
        return ""
