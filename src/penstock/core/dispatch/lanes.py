"""The requests of one pool that wait for a replica, in the order in which they are to go.

One ranking: class, deadline, later steps before earlier ones (so that rows leave), longest expected work first once the
source is exhausted, then position. Class and step make a lane. Within one, requests mostly arrive in order of position,
so a lane is a deque with a heap beside it for those that do not (retries, children, deadlines, longest first).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from math import log

from msgspec import Struct

NO_DEADLINE = float("inf")
WAITING, SUSPECT, ENDED = -1, -2, -3  # places of a request; 0 and up: in flight on that replica


class Request(Struct, gc=False):
    """A request that has been submitted and has not ended.

    order       position of its source row
    tokens_in   prompt tokens as guessed; prompt: as learned, or as a host has counted them (counted)
    tokens_out  limit of output tokens
    cost        tokens that it holds of a replica's credit while it is out
    work        how long it is expected to keep an engine busy (see OUTPUT_TOKEN_WORK)
    attempt     sends so far
    failures    attempts that ended in a retryable answer
    crashes     replica deaths while it was out; solo_crashes: while it ran alone
    killed      the replica whose death made it a suspect, outside the lane; -1: none did. killed_at: when that was
    starved     times that a replica ran out of memory while it ran alone
    recalled    a TakeBack for it is out; started: one was, and the host did not return it
    begun       the attempt whose first part went to who listens; 0: none did
    place       where it is: WAITING, SUSPECT, the index of a replica that it is in flight on, or ENDED
    """

    task: int
    step: int
    order: int
    priority: int
    deadline: float
    tokens_in: int
    tokens_out: int
    pool: int = 0
    place: int = -1
    cost: int = 0
    work: int = 0
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    solo_crashes: int = 0
    starved: int = 0
    killed: int = -1
    killed_at: float = 0.0
    prompt: int = 0
    counted: bool = False
    recalled: bool = False
    started: bool = False
    begun: int = 0


_Key = tuple[float, int, int, int]
LaneKey = tuple[int, ...]
OUTPUT_TOKEN_WORK = 50  # work of an output token where that of a prompt token is 1: prefill runs many at once
_CLASSES_PER_E = 16  # size classes per factor of e: work within some 6% counts as equal, and goes by position


def _size_class(request: Request, ratio: float) -> int:
    return int(_CLASSES_PER_E * log(1.0 + request.tokens_out * ratio + request.tokens_in / OUTPUT_TOKEN_WORK))


class Lane:
    """Requests of one class and step. tokens_in, tokens_out: sums over those that wait.

    A request that is cancelled stays where it is, as ENDED, until it is first or half of the lane has ended: finding it
    in the heap would cost as much as all that wait.
    """

    def __init__(self, step: int = 0, priority: int = 100) -> None:
        self.step = step
        self.priority = priority
        self.tokens_in = 0
        self.tokens_out = 0
        self._line: deque[Request] = deque()
        self._heap: list[tuple[_Key, Request]] = []
        self._ended = 0  # of those in line and heap
        self._ratio: float | None = None  # not None: longest expected first

    def __len__(self) -> int:
        return len(self._line) + len(self._heap) - self._ended

    def _key(self, request: Request) -> _Key:
        # A deadline goes before the length: longest first only shortens the end, a deadline loses an answer.
        longest = 0 if self._ratio is None else -_size_class(request, self._ratio)
        return (request.deadline, longest, request.order, request.task)

    def push(self, request: Request) -> None:
        self.tokens_in += request.tokens_in
        self.tokens_out += request.tokens_out
        line = self._line
        # A run submits rows in order: an append costs a tenth of a push into the heap.
        if self._ratio is None and request.deadline == NO_DEADLINE and (not line or line[-1].order <= request.order):
            line.append(request)
        else:
            heappush(self._heap, (self._key(request), request))

    def first(self) -> Request:
        """What `pop` will return. The lane is not empty."""
        heap, line = self._heap, self._line
        if self._ended:
            self._drop_ended()
        if heap and (not line or heap[0][0] < self._key(line[0])):
            return heap[0][1]
        return line[0]

    def pop(self) -> Request:
        if self._heap or self._ended:
            request = self.first()
            if self._line and self._line[0] is request:
                self._line.popleft()
            else:
                heappop(self._heap)
        else:
            request = self._line.popleft()  # most requests wait in order
        self.tokens_in -= request.tokens_in
        self.tokens_out -= request.tokens_out
        return request

    def put_back(self, request: Request) -> None:
        """Undo a pop: the request goes first again."""
        self.tokens_in += request.tokens_in
        self.tokens_out += request.tokens_out
        # In front of the heap's first as well: it was chosen over that one, and nothing has changed.
        self._line.appendleft(request)

    def end(self, request: Request) -> None:
        """One that waits here is not wanted any more."""
        request.place = ENDED
        self.tokens_in -= request.tokens_in
        self.tokens_out -= request.tokens_out
        self._ended += 1
        # Otherwise a lane of which everything is cancelled, again and again, would keep it all.
        if self._ended > len(self):
            self._rebuild()  # what has ended is more than what waits: its removal is paid for by those that ended

    def longest_first(self, ratio: float) -> None:
        """From now on rank by expected output, `ratio` of the limit, longest first."""
        waiting = self.requests()
        self._ratio = ratio
        self._line.clear()
        self._heap = [(self._key(request), request) for request in waiting]
        heapify(self._heap)
        self._ended = 0

    def requests(self) -> list[Request]:
        waiting = [*self._line, *(request for _, request in self._heap)]
        return [request for request in waiting if request.place != ENDED]

    def _drop_ended(self) -> None:
        """Until the first of the line and the first of the heap wait."""
        line, heap = self._line, self._heap
        while line and line[0].place == ENDED:
            line.popleft()
            self._ended -= 1
        while heap and heap[0][1].place == ENDED:
            heappop(heap)
            self._ended -= 1

    def _rebuild(self) -> None:
        self._line = deque(request for request in self._line if request.place != ENDED)
        self._heap = [item for item in self._heap if item[1].place != ENDED]
        heapify(self._heap)
        self._ended = 0


class StrictOrder:
    """Lower classes first; within a class later steps first, so that rows leave the window before others come in.

    The order of a pool's lanes is a policy, apart from how they are kept: aging or fair shares are other ones.
    """

    def lane_of(self, request: Request) -> LaneKey:
        """Lanes are served in the order of their keys. All requests of a lane are of one class and step."""
        return request.priority, -request.step

    def may_pass(self, lane: Lane, blocked: Lane) -> bool:
        """Whether `lane` is served although `blocked`, which goes before it, waits for room. Never: shorter requests
        from behind would take each place that comes free, and a long one would wait for as long as they come."""
        return False


class Lanes:
    """All lanes of a pool, in the order of the policy."""

    def __init__(self, policy: StrictOrder | None = None) -> None:
        self._policy = policy or StrictOrder()
        self._lanes: dict[LaneKey, Lane] = {}
        self._longest_first = False
        self.ranked: list[Lane] = []
        self.count = 0

    def push(self, request: Request) -> None:
        # Set here, since a request comes to a lane from four sides: new, returned, failed, and cleared as a suspect.
        request.place = WAITING
        self._lane_for(request).push(request)
        self.count += 1

    def extend(self, requests: Sequence[Request]) -> None:
        """New requests of one class and step: their lane is looked up once."""
        if requests:
            push = self._lane_for(requests[0]).push
            for request in requests:
                push(request)
            self.count += len(requests)

    def _lane_for(self, request: Request) -> Lane:
        key = self._policy.lane_of(request)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(request.step, request.priority)
            if self._longest_first:  # nothing is learned of its step yet: the limits keep the order
                lane.longest_first(1.0)
            self.ranked = [self._lanes[key] for key in sorted(self._lanes)]
        return lane

    def first(self) -> Request | None:
        """The request that goes next."""
        return next((lane.first() for lane in self.ranked if lane), None)

    def goes_before(self, request: Request, other: Request) -> bool:
        """Whether `request` would go before `other` if it waited as well."""
        first, second = self._policy.lane_of(request), self._policy.lane_of(other)
        return (first, request.deadline, request.order) < (second, other.deadline, other.order)

    def may_pass(self, lane: Lane, blocked: Lane | None) -> bool:
        return blocked is None or self._policy.may_pass(lane, blocked)

    def recount(self) -> None:
        """After requests were taken from lanes directly."""
        # Lanes are popped directly while a pool is filled: counting there would cost each request, this a few lanes.
        self.count = sum(len(lane) for lane in self.ranked)

    def longest_first(self, ratios: dict[int, float]) -> None:
        self._longest_first = True
        for lane in self.ranked:
            lane.longest_first(ratios.get(lane.step, 1.0))

    def end(self, request: Request) -> None:
        """One that waits is not wanted any more."""
        self._lanes[self._policy.lane_of(request)].end(request)
        self.count -= 1

    def requests(self) -> list[Request]:
        return [request for lane in self.ranked for request in lane.requests()]
