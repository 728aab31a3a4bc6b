"""One replica as the dispatcher sees it: its state (`replica_states.py`) and its parts (`credit.py`, `restarts.py` for
deaths and memory, `liveness.py`, and `pace.py` for its throughput beside its peers)."""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.dispatch.credit import Credit
from penstock.core.dispatch.lanes import Request
from penstock.core.dispatch.liveness import Liveness
from penstock.core.dispatch.pace import Pace
from penstock.core.dispatch.replica_states import ANSWERS, SERVES, TRANSITIONS, Ending
from penstock.core.dispatch.restarts import MemoryShare, Restarts
from penstock.core.shape import DispatchLimits, ReplicaShape
from penstock.errors import InvariantError

IDLE_FIRST = 1 << 24  # more than any spare credit
MOST_WORK = 1 << 31  # more than any replica is sent


class Replica(Credit):
    """Its credit (`credit.py`), and its state, which says whether there is any. spare(): how many more requests of a
    class it may be sent."""

    def __init__(
        self,
        index: int,
        shape: ReplicaShape,
        limits: DispatchLimits,
        broken: Callable[[str], InvariantError] = InvariantError,
    ) -> None:
        super().__init__(limits)
        self.index = index
        self.shape = shape
        self.state = "off"
        self.wanted = True  # False: it was removed from its pool
        self.incarnation = 0
        self.trying = 0  # suspects of the group that it was given
        self.alone = -1  # the one suspect of a group of one
        self.ending_because: Ending = ""
        self.times_slow = 0  # windows in a row
        self.liveness = Liveness(shape, limits)
        self.restarts = Restarts(limits)
        self.memory = MemoryShare(limits)
        self.pace = Pace()
        self._broken = broken

    def can(self, event: str) -> bool:
        """Whether the table has a transition from here: for what comes from outside, in whatever order."""
        return event in TRANSITIONS[self.state]

    def move(self, event: str) -> None:
        """Take the transition. Raises InvariantError, with the story, where the table has none from here: what was
        decided from a wrong idea of the state must not reach a host."""
        following = TRANSITIONS[self.state].get(event)
        if following is None:
            raise self._broken(f"{self.shape.name} is {self.state}: {event} is impossible")
        self.state = following

    def join(self, shape: ReplicaShape) -> None:
        """It was removed, and is in its pool again, perhaps elsewhere: nothing is known of it."""
        self.shape = shape
        self.wanted, self.times_slow = True, 0
        self.liveness = Liveness(shape, self.limits)
        self.restarts = Restarts(self.limits)
        self.memory = MemoryShare(self.limits)

    @property
    def answers(self) -> bool:
        return self.state in ANSWERS

    @property
    def serves(self) -> bool:
        return self.state in SERVES

    @property
    def in_lane(self) -> bool:
        """Whether it runs suspects now: a group that has been answered, in a pool that is paused, can't kill it."""
        return self.trying > 0 and bool(self.in_flight)

    def spare(self, priority: int) -> int:
        """Places that a class may still take. Every class may take every place; one that places are kept free for has
        the others' `held` to tell how many they may still take."""
        if self.state != "ready":
            return 0
        return self.slots + self.lookahead - len(self.in_flight)

    def rank(self, priority: int, *, by_work: bool = False) -> int:
        """Who gets the next request of a class: who has idle slots before who would only queue it, then the most spare
        credit, or with `by_work` the least work in flight. 0 where nothing may be sent.

        Without the first rule a long look-ahead would draw requests away from idle slots.
        """
        spare = self.spare(priority)
        if spare <= self.lookahead:
            return max(spare, 0)
        return IDLE_FIRST + (MOST_WORK - min(self.work, MOST_WORK) if by_work else spare)

    def count(self) -> tuple[int, int, int]:
        """Requests that must be waiting in the host and were not called back yet; slots that are idle; recalls out."""
        if self.state not in ANSWERS:
            return (0, 0, 0)
        out = len(self.in_flight)
        idle = max(0, self.slots - out) if self.state == "ready" else 0
        return (max(0, out - max(self.slots, self.started) - self.recalled), idle, self.recalled)

    def loads(self, now: float) -> None:
        """A load or a waking begins."""
        self.restarts.started_at = now
        self.liveness.loads(now)

    def became_ready(self, slots: int, kv_tokens: int, now: float, *, shared: bool = False) -> None:
        self.grant(slots, kv_tokens, now, shared=shared)
        self.restarts.became_ready(now)
        self.liveness.serves(now)

    def take_all(self) -> list[Request]:
        """Everything in flight; nothing is in flight afterwards."""
        self.trying, self.alone = 0, -1
        return self.refund_all()

    # ------------------------------------------------------------ liveness

    def saw(self, progress: int, executing: int, now: float) -> None:
        self.liveness.saw(progress, executing, now, owes=bool(self.in_flight))

    def progress_deadline(self) -> float | None:
        """When it counts as hung unless it makes progress; None when it owes none."""
        if self.state in ("starting", "waking"):
            return self.liveness.load_deadline()
        if self.state == "falling_asleep":
            return self.liveness.sleep_deadline()
        return self.liveness.work_deadline() if self.answers and self.in_flight else None

    def expected_ready_at(self) -> float:
        """When a replica that died will be back, if it loads as long as before."""
        restarts = self.restarts
        return (restarts.start_at if self.state == "waiting" else restarts.started_at) + restarts.load_s
