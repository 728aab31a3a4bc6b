"""The interface between the runtime and the executors, which start and stop replica processes.

An executor starts one replica at a time and tells, through a selectable socket per replica, what its host says, and
through `news` how it ended. It decides nothing: when to start, restart or kill is the core's business.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Protocol

import msgspec

from penstock.protocol.messages import EngineConfig, PythonWork


class Launch(msgspec.Struct, frozen=True):
    """One start of one replica.

    replica    its id, for instance writer-0
    config     what the host loads
    work       of a worker of Python steps
    python     another interpreter to run the host under, or None
    env        variables set before anything is imported (device binding, threads)
    log        file that gets the host's and the engine's stdout and stderr
    nodes      where the plan puts it, by name, for executors that have several
    """

    replica: str
    config: EngineConfig
    log: Path
    work: PythonWork | None = None
    python: str | None = None
    env: dict[str, str] = {}
    nodes: tuple[str, ...] = ()


class Exit(msgspec.Struct, frozen=True):
    """How a replica's processes ended. `status` as of waitpid (negative: the signal); `tail`: end of its log."""

    replica: str
    incarnation: int
    status: int
    tail: str


class Started(msgspec.Struct, frozen=True):
    """A replica has been started. `connection` speaks protocol/messages.py; it is non-blocking.

    connection    None where the host has to dial back first: `news` brings it
    keeper_pid    of the topmost process of the replica, the keeper of its guardian; 0 where that is on another machine
    devices       what the replica got, where only the executor knows: NODE/gpu:N; () where the plan says it, or where
                  it has not been placed yet (no connection)
    """

    replica: str
    incarnation: int
    connection: socket.socket | None
    keeper_pid: int
    devices: tuple[str, ...] = ()


class Executor(Protocol):
    def start(self, launch: Launch, incarnation: int) -> Started: ...

    def kill(self, replica: str, incarnation: int, *, dump_stacks: bool = False) -> None:
        """End the replica's whole process group now. Its Exit follows."""
        ...

    def news_files(self) -> list[int]:
        """File descriptors that become readable when `news` has something."""
        ...

    def news(self) -> list[Started | Exit]:
        """Replicas whose hosts have dialled back, and how replicas ended, since the last call; of one start in this
        order. Does not block."""
        ...

    def close(self) -> None:
        """End every replica and wait until their processes are gone."""
        ...
