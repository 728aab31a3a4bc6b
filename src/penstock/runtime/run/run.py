"""The loop: wait for events, ask the core, perform its instructions; every effect ends in an event.

`sim/world.py` is the same loop under virtual time.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.core import Core
from penstock.core.events import Event, Tick
from penstock.runtime.run.shell import Shell
from penstock.runtime.watch.clock import RunClock


def run_phase(core: Core, shell: Shell, clock: RunClock, watch: Callable[[float], None]) -> str:
    """Drive one phase to its end and return its status. `watch(now)` is called after every turn, for the display."""
    events: list[Event] = [Tick()]
    while not shell.ended:
        core.turn(events, clock.now(), shell.perform)
        watch(clock.now())
        if not shell.ended:
            events = shell.wait()
    return shell.ended
