"""The queue of events from threads to the driver; an exception in it ends the driver's loop."""

from __future__ import annotations

from penstock.core.events import Event
from penstock.protocol.wake_queue import WakeQueue

__all__ = ["Inbox"]

Inbox = WakeQueue[Event | BaseException]
