"""The seam between a replica's host and what runs the model.

An engine lives in a host process of its own. The host owns the socket, the queue and the figures; the engine owns
the model. Five methods:

    load      blocking; returns what the engine can hold
    submit    non-blocking; each request is answered exactly once through `emit`, in any order, from any thread
    abort     best effort; an aborted request is never answered
    progress  a number that grows while the engine gets anywhere
    close     blocking; nothing is answered afterwards

The host calls `submit` with at most `capacity.slots` requests unanswered (and within `kv_tokens`), so an engine
needs no queue of its own. An engine never raises for the fault of one request: it answers with a code. What it
raises from `load` is the load's failure (`EngineLoadError` says which kind); what it raises from `submit` ends the
replica.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from penstock.engines.messages import Answer, Capacity, EngineConfig, Request, Sampling

Emit = Callable[[Sequence[Answer]], None]


class Prompted(msgspec.Struct, gc=False):
    """A request as an engine gets it: the wire's request with its sampling resolved."""

    request: Request
    sampling: Sampling | None


class EngineLoadError(Exception):
    """`code`: missing_dependency | bad_model | out_of_memory | error."""

    def __init__(self, message: str, code: str = "error") -> None:
        super().__init__(message)
        self.code = code


class Engine(Protocol):
    def load(self, config: EngineConfig, emit: Emit, note: Callable[[str], None]) -> Capacity: ...

    def submit(self, requests: Sequence[Prompted]) -> None: ...

    def abort(self, ids: Sequence[int]) -> None: ...

    def progress(self) -> int: ...

    def close(self) -> None: ...
