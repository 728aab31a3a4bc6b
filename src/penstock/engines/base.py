"""The seam between a replica's host and what runs the model.

An engine runs in its own host process. The host owns the socket, the queue and the figures; the engine owns
the model. Five methods:

    load      blocking; returns what the engine can hold
    submit    non-blocking; each request is answered exactly once through `emit`, in any order, from any thread;
              a request with a listener may have its parts emitted before (engines whose record honours `parts`)
    abort     best effort; an aborted request is never answered
    progress  a number that grows while the engine gets anywhere
    close     blocking; nothing is answered afterwards

The host calls `submit` with at most `capacity.slots` requests unanswered (and within `kv_tokens`), so an engine
needs no queue of its own. An engine never raises for the fault of one request: it answers with a code. What it
raises from `load` is the load's failure (`EngineLoadError` says which kind); what it raises from `submit`, `abort` or
`progress` ends the replica.

`load` and `close` are called in the main thread of the host's process, which belongs to the engine; the other three
in the thread of the host's loop. What only some engines can do is a seam of its own, which they inherit from: an engine
that gives memory back between two phases is a `Sleeper`, one whose work needs the main thread (signals, for one) a
`MainThreadWorker`, one that tokenises prompts a `PromptCounter`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.protocol.messages import Answer, AnswerPart, Capacity, EngineConfig, Request

Emit = Callable[[Sequence[Answer | AnswerPart]], None]


class EngineLoadError(Exception):
    """`code`: missing_dependency | bad_model | out_of_memory | error."""

    def __init__(self, message: str, code: str = "error") -> None:
        super().__init__(message)
        self.code = code


class Engine(Protocol):
    def load(self, config: EngineConfig, emit: Emit, note: Callable[[str], None]) -> Capacity: ...

    def submit(self, requests: Sequence[Request]) -> None: ...

    def abort(self, ids: Sequence[int]) -> None: ...

    def progress(self) -> int: ...

    def close(self) -> None: ...


class Sleeper(ABC):
    """An engine whose Capacity may say `can_sleep`. Both are called in the main thread, with nothing in flight; what
    they raise ends the replica."""

    @abstractmethod
    def sleep(self) -> None:
        """Give the devices' memory back; blocking."""

    @abstractmethod
    def wake(self) -> Capacity:
        """Take it again, and be as after `load`; blocking."""


class PromptCounter(ABC):
    """An engine that tokenises prompts before it runs them."""

    @abstractmethod
    def report_sizes(self, sized: Callable[[int, int], None]) -> None:
        """From now on call `sized(id, tokens)` for each prompt that was tokenised, from any thread."""


class MainThreadWorker(ABC):
    """An engine that works in the main thread of its host."""

    @abstractmethod
    def run(self) -> None:
        """Work. Called in the main thread after `load`; the process ends under it, in place of `close`."""

    @abstractmethod
    def ahead(self) -> int:
        """How many requests beyond `slots` it wants at hand now, so that short ones cost no hop between threads."""

    @abstractmethod
    def give_back(self, ids: Sequence[int]) -> list[int]:
        """Those of `ids` that it has not begun; it never will."""
