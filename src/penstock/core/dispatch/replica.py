"""One replica as the dispatcher sees it: its state, its credit, and the look-ahead that keeps it from running dry."""

from __future__ import annotations

from collections import deque
from math import ceil, inf

from penstock.core.dispatch.lanes import Request
from penstock.core.dispatch.pace import Pace
from penstock.core.shape import DispatchLimits, ReplicaShape

# state -> event -> state. What is not here can't happen; `Replica.move` refuses it.
TRANSITIONS: dict[str, dict[str, str]] = {
    "off": {"start": "starting"},
    "starting": {"ready": "ready", "load_failed": "failed", "lost": "waiting", "kill": "killed", "leave": "leaving"},
    "ready": {"lost": "waiting", "kill": "killed", "sleep": "falling_asleep", "leave": "leaving"},
    "killed": {"lost": "waiting", "load_failed": "failed", "ready": "killed", "leave": "leaving"},
    "waiting": {"start": "starting", "give_up": "failed", "leave": "off"},
    "failed": {"lost": "failed"},
    "falling_asleep": {"asleep": "asleep", "lost": "off", "leave": "leaving"},
    "asleep": {"wake": "waking", "lost": "off", "leave": "leaving"},
    "waking": {"ready": "ready", "lost": "waiting", "kill": "killed", "leave": "leaving"},
    "leaving": {"lost": "off", "ready": "leaving", "load_failed": "leaving", "asleep": "leaving"},
}

IDLE_FIRST = 1 << 24  # more than any spare credit
MOST_WORK = 1 << 31  # more than any replica is sent
_RATE_WINDOW_S = 0.5  # the completion rate is taken over windows of this length
_BURST_DECAY = 0.9  # per window: a wave is remembered for some seconds
_HEADROOM = 1.5  # look-ahead over what the measured turnaround needs


class Replica:
    """in_flight: requests sent and not ended, in the order of sending. lookahead: requests beyond the engine's slots
    that may wait in its host. spare(): how many more it may be sent."""

    def __init__(self, index: int, shape: ReplicaShape, limits: DispatchLimits) -> None:
        self.index = index
        self.shape = shape
        self.limits = limits
        self.state = "off"
        self.incarnation = 0
        self.slots = 0
        self.kv_tokens = 0
        self.shared = False  # its slots share one device: more requests at once slow each other down
        self.lookahead = 1
        self.in_flight: dict[int, Request] = {}
        self.tokens_in_flight = 0
        self.work = 0  # of what is in flight, see lanes.Request
        self.counted = (0, 0, 0)  # what its pool has counted of it
        self.recalled = 0  # of those in flight, how many a TakeBack is out for
        self.kept = 0  # and how many are known to have begun, since the host kept them
        self.solo = False  # the quarantine lane: serves suspects, nothing else
        self.trying = 0  # suspects of the group that it was given
        self.alone = -1  # the one suspect of a group of one
        self.died_at = -1.0
        self.started_at = self.load_s = 0.0  # of its last load or waking, and how long that took
        self.deaths: deque[tuple[float, int]] = deque()  # (when, how much it counts for the circuit)
        self.loaded = False  # this incarnation has been ready
        self.never_ready = 0  # starts in a row that ended before the replica was ready
        self.rung = 0  # steps down the ladder that it took, since it ran out of memory while it started
        self.lowered = False  # it ends because of that
        self.out_of_memory = False  # why it failed
        self.pace = Pace()
        self.ejected = False  # it ends because it was slow
        self.times_slow = 0  # windows in a row
        self.share = 1.0  # of the room that its engine has; less after it ran out of memory at work
        self.starved: dict[tuple[int, int], int] = {}  # (slots, tokens) -> how often it ran out of memory with them
        self.start_at = 0.0  # while waiting: when to start again
        self.last_reason = ""
        self.progress = -1
        self.progress_at = 0.0
        self.heard_at: float | None = None  # while it loads: when it last said anything
        self.longest_gap_s = 0.0
        self._done = 0
        self._rate_from = 0.0
        self._rate_per_s = 0.0
        self._burst = 0.0

    def move(self, event: str) -> bool:
        """Take the transition; False when the table has none from here."""
        following = TRANSITIONS[self.state].get(event)
        if following is None:
            return False
        self.state = following
        return True

    def spare(self) -> int:
        if self.state != "ready" or self.solo:
            return 0
        return self.slots + self.lookahead - len(self.in_flight)

    def rank(self, *, by_work: bool = False) -> int:
        """Who gets the next request: who has idle slots before who would only queue it, then the most spare credit, or
        with `by_work` the least work in flight. 0 where nothing may be sent.

        Without the first rule a long look-ahead would draw requests away from idle slots.
        """
        spare = self.spare()
        if spare <= self.lookahead:
            return max(spare, 0)
        return IDLE_FIRST + (MOST_WORK - min(self.work, MOST_WORK) if by_work else spare)

    def fits(self, cost: int) -> bool:
        """Whether `cost` more tokens go in. An idle replica takes anything: too long is for its engine to say."""
        return cost <= self.token_room()

    def token_room(self) -> float:
        """How costly a request may be to fit."""
        if not self.in_flight:
            return inf
        if not self.kv_tokens:
            return 0.0 if self.holds_enough() else inf
        return self._most_tokens() - self.tokens_in_flight

    def holds_enough(self) -> bool:
        """Whether what is in flight would take up the memory of its host if there were more of it."""
        return self.tokens_in_flight >= self.limits.most_tokens_out

    def _most_tokens(self) -> float:
        return self.kv_tokens * min(1.0 + self.lookahead / self.slots, 1.25)

    def count(self) -> tuple[int, int, int]:
        """Requests that must be waiting in the host and were not called back yet; slots that are idle; recalls out."""
        if self.state != "ready":
            return (0, 0, 0)
        out = len(self.in_flight)
        idle = 0 if self.solo else max(0, self.slots - out)
        return (max(0, out - max(self.slots, self.kept) - self.recalled), idle, self.recalled)

    def became_ready(self, slots: int, kv_tokens: int, now: float, *, shared: bool = False) -> None:
        self.slots, self.kv_tokens, self.shared = max(1, slots), kv_tokens, shared
        self.lookahead = 1 + self.slots // 8
        self.loaded = True
        self.load_s = now - self.started_at
        self.never_ready = 0
        self.solo = False
        self.progress, self.progress_at = -1, now
        self._done, self._rate_from, self._rate_per_s = 0, now, 0.0

    def take_all(self) -> list[Request]:
        """Everything in flight; nothing is in flight afterwards."""
        requests = list(self.in_flight.values())
        self.in_flight = {}
        self.tokens_in_flight = self.work = self.recalled = self.kept = 0
        self.trying, self.alone = 0, -1
        return requests

    # ------------------------------------------------------------ look-ahead

    def measure(self, done: int, turnaround_s: float, *, starved: bool, now: float) -> None:
        """Size the look-ahead so that the engine's queue does not run dry while an answer travels here and back.

        It covers completion rate x turnaround (measured by the host) x 1.5, and the most slots that came free at once
        lately: requests of like length begin and end together, and each such wave would wait for a turnaround. It
        doubles when the engine ran dry although requests were waiting, and falls back slowly.
        """
        self._done += done
        self._burst = max(self._burst, float(min(done, self.slots)))
        needed = ceil(self._burst) + 1
        elapsed = now - self._rate_from
        if elapsed >= _RATE_WINDOW_S:
            self._rate_per_s = self._done / elapsed
            self._done, self._rate_from = 0, now
            self._burst *= _BURST_DECAY
            needed = max(needed, ceil(self._rate_per_s * turnaround_s * _HEADROOM) + 1)
            self.lookahead = max(needed, self.lookahead * 3 // 4)
        if starved:
            self.lookahead *= 2
        self.lookahead = min(max(self.lookahead, needed), self.limits.max_lookahead)

    # ------------------------------------------------------------ liveness

    def saw(self, progress: int, executing: int, now: float) -> None:
        """Signs of life: the engine's progress counter, or that it owes nothing.

        A host that reports nothing executing while requests are out has not begun them yet, or has lost them.
        """
        if progress != self.progress or not self.in_flight:
            if self.progress >= 0 and executing:
                self.longest_gap_s = max(self.longest_gap_s, now - self.progress_at)
            self.progress, self.progress_at = progress, now

    def progress_deadline(self) -> float | None:
        """When it counts as hung unless it makes progress; None when it owes none."""
        if self.state in ("starting", "waking"):
            longest = self.progress_at + self.limits.load_timeout_s
            return longest if self.heard_at is None else min(longest, self.heard_at + self._silence_s())
        if self.state == "falling_asleep":
            return self.progress_at + self.limits.sleep_timeout_s
        if self.state != "ready" or not self.in_flight:
            return None
        allowed = self.shape.progress_timeout_s
        if allowed is None:
            allowed = max(self.limits.progress_timeout_s, self.limits.progress_factor * self.longest_gap_s)
        return self.progress_at + allowed

    def _silence_s(self) -> float:
        allowed = self.shape.progress_timeout_s
        return self.limits.silence_timeout_s if allowed is None else max(allowed, self.limits.least_silence_s)

    def died(self, now: float, jitter: float, *, counts: bool, device_failed: bool = False) -> None:
        """Plan the next start: at once after a death in the suspects' lane, else with growing delay; or give up."""
        limits = self.limits
        self.died_at = now
        if not counts:
            self.start_at = now
            return
        self.deaths.append((now, ceil(limits.circuit_deaths / limits.device_deaths) if device_failed else 1))
        while self.deaths and self.deaths[0][0] < now - limits.circuit_window_s:
            self.deaths.popleft()
        backoff = min(limits.restart_backoff_s * 2 ** (len(self.deaths) - 1), limits.restart_backoff_max_s)
        self.start_at = now + backoff * (1.0 + 0.25 * jitter)

    def cut(self) -> bool:
        """It ran out of memory at work: use less of its room from the next start on. False where that was tried."""
        room = (self.slots, self.kv_tokens)
        self.starved[room] = self.starved.get(room, 0) + 1
        limits = self.limits
        share = max(self.share * limits.memory_cut, limits.least_share)
        smaller = (self.slots > 1 or self.kv_tokens > 0) and share < self.share
        self.share = share
        return smaller and self.starved[room] < limits.same_memory

    def expected_ready_at(self) -> float:
        """When a replica that died will be back, if it loads as long as before."""
        return (self.start_at if self.state == "waiting" else self.started_at) + self.load_s

    def forgive(self, at: float) -> None:
        """Its death of then was a request's fault, as is known now."""
        forgiven = next((death for death in self.deaths if death[0] == at), None)
        if forgiven is not None:
            self.deaths.remove(forgiven)

    def circuit_open(self) -> bool:
        return sum(weight for _, weight in self.deaths) >= self.limits.circuit_deaths
