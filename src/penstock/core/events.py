"""Events and instructions: the only language of the core.

The driver of the core (`runtime/` with processes and files, `sim/` with a heap of virtual times) reports what happened
as events, performs the instructions that come back, and reports the effect of each as an event again. Both carry lists,
so that the cost of one is shared by many rows. They hold identities, sizes and costs, never payloads.

Identities are integers:

    row      a source row's position; children made by `expand` count up from CHILD_BASE
    task     row * number of steps + step
    replica  index of a replica in the order of the plan; `incarnation` counts its starts
    attempt  counts the sends of one task, from 1; an answer is taken only for the attempt that is out

`cause` of an event is the `id` of the instruction whose effect it tells, 0 where the world spoke first.
"""

from __future__ import annotations

from penstock.core.dispatch_events import *  # noqa: F403
from penstock.core.flow_events import *  # noqa: F403
from penstock.core.language import *  # noqa: F403
