"""What events and instructions have in common: see `events.py`."""

from __future__ import annotations

from msgspec import Struct

__all__ = [
    "CHILD_BASE",
    "Event",
    "Instruction",
]

CHILD_BASE = 1 << 44  # source positions stay far below; task numbers stay far below 2**63


class Event(Struct, kw_only=True):
    cause: int = 0


class Instruction(Struct, kw_only=True):
    id: int = 0
