"""Which requests have a deadline, the earliest first. One that is past it ends as `expired`, wherever it is."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush

from penstock.core.dispatch.lanes import Request


class Deadlines:
    """Looked at with each Tick, so a request may outlive its deadline by the time between two of them."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self.judged_at = float("-inf")

    def add(self, request: Request) -> None:
        heappush(self._heap, (request.deadline, request.task))

    def due(self, requests: Mapping[int, Request], now: float) -> list[Request]:
        """Those of `requests` that are past their deadlines. What has ended since stays in the heap until its time,
        since finding it would cost as much as all that have a deadline."""
        # For the checks: between two ticks a deadline may pass, and that is no fault.
        self.judged_at = now
        found: list[Request] = []
        while self._heap and self._heap[0][0] <= now:
            deadline, task = heappop(self._heap)
            # The deadline too is compared: a task's number may be another request's by then.
            request = requests.get(task)
            if request is not None and request.deadline == deadline:
                found.append(request)
        return found
