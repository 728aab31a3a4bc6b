"""A replica that is much slower than its like is replaced; one that only looks so, for a while, never is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from random import Random
from typing import Any

import pytest

from penstock.core import events as ev
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.shape import DispatchLimits, DispatchShape, ReplicaShape

TICK_S = 1.0
LOAD_S = 30.0

Length = Callable[[int], int]  # of a task's output, in tokens
Seconds = Callable[[int, int, int], float]  # that a task takes on a replica with so many at a time


class Engines:
    """Replicas of one pool in virtual time, each with `slots` requests at a time. ready: when each is loaded."""

    def __init__(
        self, ready: list[float], *, slots: int, seconds: Seconds, length: Length = lambda task: 100,
        like: Iterable[int] = (), load_s: float = LOAD_S,
    ) -> None:  # fmt: skip
        kinds = tuple(like) or (0,) * len(ready)
        shapes = tuple(ReplicaShape(f"replica-{index}", 0, peer_group=kind) for index, kind in enumerate(kinds))
        self.dispatch = Dispatch(DispatchShape(("pool",), shapes, DispatchLimits()))
        self.slots, self.length, self.seconds = slots, length, seconds
        self.ready, self.load_s = ready, load_s
        self.now, self.asleep = 0.0, (0.0, 0.0)
        self.slow: list[int] = []
        self.said: list[ev.Instruction] = []  # of what is done about failures
        self.refused: frozenset[int] = frozenset()
        self._queue: list[tuple[float, int, tuple[Any, ...]]] = []
        self._count = 0
        self._waiting: list[list[tuple[int, int]]] = [[] for _ in ready]
        self._running: list[dict[int, int]] = [{} for _ in ready]
        self._progress = 0
        self._tell(ev.OpenPools(pools=[0]))
        self._at(TICK_S, "tick")

    def submit(self, at: float, tasks: Iterable[int]) -> None:
        self._at(at, "submit", list(tasks))

    def run(self, until: float) -> list[int]:
        """Replicas that were replaced because they were slow, in that order."""
        while self._queue and self._queue[0][0] <= until:
            at, _, (what, *about) = heappop(self._queue)
            if self.asleep[0] <= at < self.asleep[1] and what != "done":
                self._at(self.asleep[1], what, *about)  # the coordinator is stopped, engines go on
                continue
            self.now = at
            getattr(self, f"_{what}")(*about)
        return list(self.slow)

    def states(self) -> list[str]:
        return [replica.state for replica in self.dispatch.replicas]

    def _at(self, at: float, *what: Any) -> None:
        self._count += 1
        heappush(self._queue, (at, self._count, what))

    def _tell(self, *events: ev.Event) -> None:
        for said in self.dispatch.handle(list(events), self.now):
            if isinstance(said, ev.Recovered | ev.KillReplica | ev.FailRequests):
                self.said.append(said)
            if isinstance(said, ev.StartReplica):
                loaded = self.ready[said.replica] if said.incarnation == 1 else self.now + self.load_s
                self._at(loaded, "loaded", said.replica, said.incarnation)
            elif isinstance(said, ev.KillReplica):
                self._waiting[said.replica], self._running[said.replica] = [], {}
                self._at(self.now + 0.1, "gone", said.replica, said.incarnation, said.reason)
            elif isinstance(said, ev.Send):
                self._waiting[said.replica] += zip(said.tasks, said.attempts, strict=True)
                self._begin(said.replica)
            elif isinstance(said, ev.TakeBackFrom):
                asked = set(said.tasks)
                back = [task for task, _ in self._waiting[said.replica] if task in asked]
                self._waiting[said.replica] = [each for each in self._waiting[said.replica] if each[0] not in asked]
                self._at(self.now, "answer", said.replica, said.incarnation, [], back)
            elif isinstance(said, ev.Recovered) and said.kind == "slow":
                self.slow.append(said.replica)

    def _begin(self, replica: int) -> None:
        running = self._running[replica]
        while self._waiting[replica] and len(running) < self.slots:
            task, attempt = self._waiting[replica].pop(0)
            running[task] = attempt
            takes = 0.001 if task in self.refused else self.seconds(task, replica, len(running))
            self._at(self.now + takes, "done", replica, self.dispatch.replicas[replica].incarnation, task, attempt)

    def _tick(self) -> None:
        beats = [
            ev.HeartbeatArrived(
                replica=index, incarnation=replica.incarnation, executing=len(self._running[index]),
                waiting=len(self._waiting[index]), progress=self._next(),
            )
            for index, replica in enumerate(self.dispatch.replicas)
            if replica.state == "ready"
        ]  # fmt: skip
        self._tell(*beats, ev.Tick())
        self._at(self.now + TICK_S, "tick")

    def _next(self) -> int:
        self._progress += 1
        return self._progress

    def _loaded(self, replica: int, incarnation: int) -> None:
        self._tell(ev.ReplicaReady(replica=replica, incarnation=incarnation, slots=self.slots, kv_tokens=0))

    def _gone(self, replica: int, incarnation: int, reason: str) -> None:
        self._tell(ev.ReplicaLost(replica=replica, incarnation=incarnation, reason=reason, jitter=0.0))

    def _submit(self, tasks: list[int]) -> None:
        limits = [2 * self.length(task) for task in tasks]
        count = len(tasks)
        self._tell(ev.Submit(pool=0, step=0, tasks=tasks, orders=tasks, tokens_in=[100] * count, tokens_out=limits))

    def _done(self, replica: int, incarnation: int, task: int, attempt: int) -> None:
        if self._running[replica].get(task) != attempt:
            return  # it was killed meanwhile
        del self._running[replica][task]
        self._begin(replica)
        asleep = self.asleep[0] <= self.now < self.asleep[1]
        self._at(self.asleep[1] if asleep else self.now, "answer", replica, incarnation, [(task, attempt)], None)

    def _answer(self, replica: int, incarnation: int, done: list[tuple[int, int]], back: list[int] | None) -> None:
        refused = [task in self.refused for task, _ in done]
        self._tell(
            ev.AnswersArrived(
                batch=1, replica=replica, incarnation=incarnation,
                tasks=[task for task, _ in done], attempts=[attempt for _, attempt in done],
                codes=["refused" if each else "" for each in refused] if any(refused) else None,
                tokens_in=[100] * len(done), tokens_out=[self.length(task) for task, _ in done],
                executing=len(self._running[replica]), waiting=len(self._waiting[replica]), turnaround_s=0.01,
                progress=self._next(), returned=back, sized=[],
            )
        )  # fmt: skip


def paced(*times: float, seconds: float = 1.0) -> Seconds:
    """Replica i takes `times[i]` times as long."""
    return lambda task, replica, together: seconds * times[replica]


def busy(engines: Engines, tasks: int = 20_000) -> Engines:
    engines.submit(1.0, range(tasks))
    return engines


# ---------------------------------------------------------------- who is slow


def test_who_works_at_a_tenth_is_replaced_and_what_it_had_goes_elsewhere() -> None:
    engines = busy(Engines([0, 0, 0], slots=4, seconds=paced(1, 1, 10)), 3000)
    assert engines.run(110) == []
    assert engines.run(200) == [2]
    assert engines.run(3000) == [2, 2], "and once more, after its second start"
    assert engines.states() == ["ready", "ready", "failed"]
    assert not any(isinstance(said, ev.FailRequests) for said in engines.said)
    assert not any(pool.waiting() for pool in engines.dispatch.pools), "all rows have answers"
    assert not any(replica.in_flight for replica in engines.dispatch.replicas)


def test_it_is_told_with_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = busy(Engines([0, 0], slots=4, seconds=paced(1, 1)), 800)
    engines.run(10)
    (peers,), worst = engines.dispatch.pools[0].peers, engines.dispatch.replicas[1]
    monkeypatch.setattr(peers, "slow_ones", lambda now: [(worst, 0.001)] if worst.state == "ready" else [])
    engines.run(12)
    (slow,) = (said for said in engines.said if isinstance(said, ev.Recovered) and said.kind == "slow")
    assert (slow.count, slow.reason) == (1, "throughput is 0% of the median of its peers"), (
        "what counts 0 is not reported"
    )
    (kill,) = (said for said in engines.said if isinstance(said, ev.KillReplica))
    assert (kill.replica, kill.reason, kill.dump_stacks) == (1, slow.reason, False)


def test_a_new_start_that_mends_it_is_no_second_time() -> None:
    """A restart helps for ten minutes, each time: it is started anew each time, and never given up."""
    begun = {}

    def throttled(task: int, replica: int, together: int) -> float:
        incarnation = engines.dispatch.replicas[1].incarnation
        since = begun.setdefault(incarnation, engines.now)
        return 10.0 if replica and engines.now > since + 600 else 1.0

    engines = busy(Engines([0, 0], slots=4, seconds=throttled))
    assert engines.run(4000).count(1) >= 3
    assert engines.states() == ["ready", "ready"]


def test_however_long_it_takes_to_load_it_is_given_up_in_the_end() -> None:
    engines = busy(Engines([0, 0], slots=4, seconds=paced(1, 10), load_s=1500.0))
    assert engines.run(9000) == [1, 1]
    assert engines.states() == ["ready", "failed"]


# ---------------------------------------------------------------- who is not


def test_a_third_of_the_pace_is_not_slow() -> None:
    assert busy(Engines([0, 0, 0], slots=4, seconds=paced(1, 1, 3))).run(700) == []


@pytest.mark.parametrize("like", [(0, 0, 1), (0, 0, -1), (0, 1, 2), (-1, -1, -1)])
def test_who_runs_on_another_device_is_not_compared(like: tuple[int, ...]) -> None:
    assert busy(Engines([0, 0, 0], slots=4, seconds=paced(1, 1, 10), like=like)).run(700) == []


@pytest.mark.parametrize("spread", ["narrow", "wide"])
@pytest.mark.parametrize("ready", [[0, 120], [0, 10, 20, 30], [0, 2, 4, 600]])
def test_long_requests_that_begin_at_different_times(ready: list[float], spread: str) -> None:
    """The first answers are those of the shortest, or a wave that is not there yet."""
    rng = Random(3)
    lengths = [
        max(1, int(rng.gauss(6000, 300) if spread == "narrow" else rng.expovariate(1 / 6000))) for _ in range(4000)
    ]
    engines = Engines(
        ready, slots=64, seconds=lambda task, replica, together: lengths[task] / 20, length=lengths.__getitem__
    )
    assert busy(engines, 4000).run(4000) == []


def test_another_kind_of_work_from_one_moment_on() -> None:
    """From long outputs to short ones, of which one is eighty times less work."""
    engines = Engines(
        [0, 3],
        slots=64,
        seconds=lambda task, replica, together: 10.0 if task < 3000 else 5.0,
        length=lambda task: 500 if task < 3000 else 5,
    )
    for turn in range(12):
        engines.submit(1.0 + 110 * turn, range(6000 * turn, 6000 * turn + 600))
    assert engines.run(3000) == []


@pytest.mark.parametrize("asleep", [(150.0, 1000.0), (200.0, 1400.0), (119.0, 125.0)])
def test_a_coordinator_that_is_stopped_for_a_while(asleep: tuple[float, float]) -> None:
    engines = Engines([0, 60, 90], slots=16, seconds=lambda task, replica, together: 3 + task % 3)
    engines.asleep = asleep
    assert busy(engines).run(asleep[1] + 500) == []


def test_single_requests_and_bursts() -> None:
    """One always gets the single requests, and is fast with each; the other gets half of each burst."""
    engines = Engines([0, 0], slots=100, seconds=lambda task, replica, together: 2.0 if together < 9 else 15.0)
    at, task = 5.0, 0
    while at < 8000:
        many = 200 if int(at) % 1800 < 4 else 1
        engines.submit(at, range(task, task + many))
        at, task = at + 3.1, task + many
    assert engines.run(8000) == []


def test_what_is_refused_is_no_work() -> None:
    engines = Engines([0, 0], slots=4, seconds=paced(1, 1))
    engines.refused = frozenset(task for task in range(20_000) if task % 200 < 150)
    assert busy(engines).run(900) == []


def test_who_tries_suspects_is_not_compared() -> None:
    engines = Engines([0, 0, 0], slots=4, seconds=paced(1, 1, 10))
    busy(engines)
    engines.run(100)
    engines.dispatch.replicas[2].move("isolate")
    assert engines.run(600) == []


def test_nobody_is_replaced_at_the_end() -> None:
    engines = busy(Engines([0, 0, 0], slots=4, seconds=paced(1, 1, 10)))
    assert engines.run(100) == []
    engines._tell(ev.DrainRequested(grace_s=1000.0))
    assert engines.run(1000) == []


# ---------------------------------------------------------------- both figures


def measured(rates: list[float], in_flight: list[int]) -> list[int]:
    """Who is slow of replicas with these rates of work, and so many requests at a time."""
    dispatch = Engines([0] * len(rates), slots=4, seconds=paced(*[1] * len(rates))).dispatch
    for replica in dispatch.replicas:
        replica.state, replica.slots = "ready", 4
        dispatch._release(replica, -1)
    (peers,) = dispatch.pools[0].peers
    for second in range(200):
        if peers.slow_ones(float(second)):
            raise AssertionError("before its time")
        for replica, rate, held in zip(dispatch.replicas, rates, in_flight, strict=True):
            replica.pace.advance(held, float(second))
            replica.pace.answered(1, int(rate), 0)
            replica.in_flight = {0: None}  # type: ignore[dict-item]
        if second == 118:
            break
    return [replica.index for replica, _ in peers.slow_ones(120.0)]


def test_slow_is_who_is_behind_in_rate_and_in_speed() -> None:
    assert measured([100, 100, 10], [4, 4, 4]) == [2]
    assert measured([100, 100, 10], [8, 8, 1]) == [], "it was given little, and does that fast"
    assert measured([100, 100, 90], [1, 1, 8]) == [], "it has many at a time"
    assert measured([100, 10], [4, 4]) == [1], "of two the faster is the measure"
    assert measured([100], [4]) == []
