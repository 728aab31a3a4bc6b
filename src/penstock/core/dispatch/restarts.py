"""Deaths of one replica: when it is started again, and when it is given up. What it uses of its engine's memory, less
after each time that this was too much."""

from __future__ import annotations

from collections import deque
from math import ceil

from penstock.core.shape import DispatchLimits

# Two: the first may have met memory that another process had not given back yet. Each may take half an hour.
LOADS_BEFORE_GIVING_UP = 2  # starts in a row that end before the replica is ready


class Restarts:
    """deaths       (when, how much it counts for the circuit), within the circuit's window
    died_at      the last of all deaths; -1: none
    start_at     while it waits: when to start again
    started_at   begin of its last load or waking; load_s: how long that took
    loaded       this incarnation has been ready
    never_ready  starts in a row that ended before it was
    last_reason  of its last end
    retry_at     it was given up, and is tried again then; None: never
    half_open    it is being tried: its first death opens the circuit again, its first answer closes it
    """

    def __init__(self, limits: DispatchLimits) -> None:
        self._limits = limits
        self.deaths: deque[tuple[float, int]] = deque()
        self.died_at = -1.0
        self.start_at = 0.0
        self.started_at = self.load_s = 0.0
        self.loaded = False
        self.never_ready = 0
        self.last_reason = ""
        self.retry_at: float | None = None
        self.half_open = False

    def became_ready(self, now: float) -> None:
        self.loaded = True
        self.load_s = now - self.started_at
        self.never_ready = 0

    def died(self, now: float, jitter: float, *, counts: bool, device_failed: bool = False) -> None:
        """Plan the next start: at once after a death in the suspects' lane, else with growing delay."""
        limits = self._limits
        self.died_at = now
        # A request killed it: waiting would punish the suspects that wait for it.
        if not counts:
            self.start_at = now
            return
        # A device that reports itself broken weighs more than an unexplained death: it seldom recovers by itself.
        self.deaths.append((now, ceil(limits.circuit_deaths / limits.device_deaths) if device_failed else 1))
        # Else a run of weeks would lose each replica in the end, by one death now and then.
        while self.deaths and self.deaths[0][0] < now - limits.circuit_window_s:
            self.deaths.popleft()
        # Jitter, so that replicas that died of one cause do not load from one disk at the same moment.
        backoff = min(limits.restart_backoff_s * 2 ** (len(self.deaths) - 1), limits.restart_backoff_max_s)
        self.start_at = now + backoff * (1.0 + 0.25 * jitter)

    def forgive(self, at: float) -> None:
        """Its death of then was a request's fault, as is known now."""
        # By its time: other deaths of the same replica stay held against it.
        forgiven = next((death for death in self.deaths if death[0] == at), None)
        if forgiven is not None:
            self.deaths.remove(forgiven)

    def circuit_open(self) -> bool:
        # Half open: it has shown that it does not work, and each further proof costs requests a try.
        most = 1 if self.half_open else self._limits.circuit_deaths
        return sum(weight for _, weight in self.deaths) >= most

    def exhausted(self) -> bool:
        """Whether another start is of no use."""
        return self.circuit_open() or self.never_ready >= (1 if self.half_open else LOADS_BEFORE_GIVING_UP)

    def gave_up(self, now: float) -> None:
        retry_s = self._limits.circuit_retry_s
        self.retry_at = None if retry_s is None else now + retry_s

    def tries_again(self) -> None:
        self.half_open, self.retry_at, self.never_ready = True, None, 0
        # What it died of before is known; only what happens from here on decides.
        self.deaths.clear()


class MemoryShare:
    """rung    steps down the ladder that it took, since it ran out of memory while it started
    share   of the room that its engine has; less after it ran out of memory at work
    starved (slots, tokens) -> how often it ran out of memory with them
    failed  it was given up because it ran out of memory while it started, on the last rung
    """

    def __init__(self, limits: DispatchLimits) -> None:
        self._limits = limits
        self.rung = 0
        self.share = 1.0
        self.starved: dict[tuple[int, int], int] = {}
        self.failed = False

    def cut(self, slots: int, kv_tokens: int) -> bool:
        """It ran out of memory at work: use less of its room from the next start on. False where that was tried."""
        room = (slots, kv_tokens)
        self.starved[room] = self.starved.get(room, 0) + 1
        limits = self._limits
        # Not halved: the engine ran out by what the last request took, and places that are gone are gone for good.
        share = max(self.share * limits.memory_cut, limits.least_share)
        smaller = (slots > 1 or kv_tokens > 0) and share < self.share
        self.share = share
        # With one and the same room it is not the room: some request takes all memory alone.
        return smaller and self.starved[room] < limits.same_memory
