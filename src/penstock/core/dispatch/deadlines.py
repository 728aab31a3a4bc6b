"""Which requests have a deadline, the earliest first. One that is past it ends as `expired`, wherever it is."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush

from penstock.core.dispatch.lanes import Request

_SLACK = 1024  # entries of requests that have ended: below it a search for them is not worth its time


class Deadlines:
    """Looked at with each Tick, so a request may outlive its deadline by the time between two of them."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self.judged_at = float("-inf")

    def add(self, request: Request) -> None:
        heappush(self._heap, (request.deadline, request.task))

    def __len__(self) -> int:
        """Requests that it knows of, some of which have ended."""
        return len(self._heap)

    def due(self, requests: Mapping[int, Request], now: float) -> list[Request]:
        """Those of `requests` that are past their deadlines."""
        # For the checks: between two ticks a deadline may pass, and that is no fault.
        self.judged_at = now
        found: list[Request] = []
        while self._heap and self._heap[0][0] <= now:
            request = _open_request(requests, heappop(self._heap))
            if request is not None:
                found.append(request)
        # A service with a deadline of an hour would hold an hour of requests that have long ended. Not one by one as
        # they end: to find one costs as much as to find all.
        if len(self._heap) > 2 * len(requests) + _SLACK:
            self._heap = [each for each in self._heap if _open_request(requests, each) is not None]
            heapify(self._heap)
        return found


def _open_request(requests: Mapping[int, Request], entry: tuple[float, int]) -> Request | None:
    """The request of an entry, unless it has ended."""
    deadline, task = entry
    request = requests.get(task)
    # The deadline too is compared: a task's number may be another request's by then.
    return request if request is not None and request.deadline == deadline else None
