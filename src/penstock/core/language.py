"""What events and instructions have in common: see `events.py`."""

from __future__ import annotations

from msgspec import Struct

CHILD_BASE = 1 << 44  # source positions stay far below; task numbers stay far below 2**63


class Event(Struct, kw_only=True):
    cause: int = 0


class ReplicaEvent(Event):
    """What one incarnation of a replica says, or what is said of it. Dropped once that incarnation has ended."""

    replica: int
    incarnation: int


class Instruction(Struct, kw_only=True):
    id: int = 0


class ReplicaInstruction(Instruction):
    """For one incarnation of a replica."""

    replica: int
    incarnation: int
