"""The states of a replica, and what moves it from one to the next.

off ──start──▶ starting ──ready──▶ ready ──isolate──▶ quarantined     tries suspects, and runs nothing else
                                     ▲ ◀──rejoin──────────┘
                                     ├─ lost ──▶ waiting ──start──▶ starting;  waiting ──give_up──▶ failed
                                     └─ drain ─▶ draining    finishes what it has; then leaving, off
killed, leaving, falling_asleep: an order is out to its host; what follows comes from there.
"""

from __future__ import annotations

from typing import Literal

# state -> event -> state. What is not here can't happen: `Replica.move` raises.
TRANSITIONS: dict[str, dict[str, str]] = {
    "off": {"start": "starting"},
    "starting": {"ready": "ready", "load_failed": "failed", "lost": "waiting", "kill": "killed", "leave": "leaving"},
    "ready": {
        "isolate": "quarantined",
        "drain": "draining",
        "lost": "waiting",
        "kill": "killed",
        "sleep": "falling_asleep",
        "leave": "leaving",
    },
    "quarantined": {
        "rejoin": "ready",
        "drain": "draining",
        "lost": "waiting",
        "kill": "killed",
        "sleep": "falling_asleep",
        "leave": "leaving",
    },
    "killed": {"lost": "waiting", "load_failed": "failed", "ready": "killed", "leave": "leaving"},
    "waiting": {"start": "starting", "give_up": "failed", "leave": "off"},
    "draining": {"lost": "off", "kill": "killed", "leave": "leaving"},
    "failed": {"lost": "failed", "start": "starting", "leave": "off"},
    "falling_asleep": {"asleep": "asleep", "lost": "off", "leave": "leaving"},
    "asleep": {"wake": "waking", "lost": "off", "leave": "leaving"},
    "waking": {"ready": "ready", "lost": "waiting", "kill": "killed", "leave": "leaving"},
    "leaving": {"lost": "off", "ready": "leaving", "load_failed": "leaving", "asleep": "leaving"},
}

SERVES = frozenset(("ready", "quarantined"))  # it is given work
ANSWERS = SERVES | {"draining"}  # its answers are taken
COMING = frozenset(("starting", "waiting", "killed", "waking"))  # it will serve, if nothing happens
UP = SERVES | COMING

# Why the present incarnation is to end, where it was the dispatcher's decision. It tells what its end means:
#   hung        a death like any other
#   slow        no death: what was in flight is not suspect
#   memory      it ran out of memory while it started, and starts again one rung lower
#   phase       it is not needed
#   removed     no death either: its pool is to do without it, at once
Ending = Literal["", "hung", "slow", "memory", "phase", "removed"]
NO_DEATH = frozenset(("slow", "removed"))
