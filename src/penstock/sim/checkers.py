"""What must hold of requests and replicas, judged outside the core from its events and instructions.

A model of its own, simple enough to be right: where each request is, and what is known of each replica. The core's own
invariants (`check_flow`, `check_dispatch`) are asked as well; rows and commits are judged by the sink.
"""

from __future__ import annotations

from msgspec import Struct

from penstock.core import events as ev
from penstock.sim.replica_checks import KnownReplica, ReplicaChecks, weight
from penstock.sim.replicas import SimAnswer
from penstock.sim.scenario import Scenario
from penstock.sim.tally import Coverage
from penstock.sim.turns import SimTurns
from penstock.sim.violations import Violation

__all__ = ["RequestChecks"]


LONGEST_TICK_S = 6.0  # a tick may be late
MOST_MOVES = 8  # times that a request may be taken back and sent again while nothing else is answered


class _Task(Struct, gc=False):
    """replica -1: it waits. alone_deaths: of replicas that ran this request and no other since it was sent."""

    pool: int
    priority: int = 100
    replica: int = -1
    attempt: int = 0
    retries: int = 0
    crashes: int = 0
    killed: int = -1  # the replica whose death outside the lane made it a suspect
    killed_at: float = 0.0
    ejections: int = 0  # of its replicas, since they were slow
    starved: int = 0  # times that a replica ran out of memory while it ran alone
    begun: bool = False  # a part of its answer has been seen
    suspect: bool = False  # in flight at a death, and neither answered nor returned since
    alone_deaths: int = 0
    answered_before: int = 0  # results that there were when it was submitted
    timeout_s: float | None = None
    seen_at: float | None = None  # the end of the turn in which it was submitted

    def is_over(self, now: float) -> bool:
        return self.timeout_s is not None and self.seen_at is not None and now >= self.seen_at + self.timeout_s


class RequestChecks(ReplicaChecks):
    def __init__(self, scenario: Scenario, tally: Coverage) -> None:
        super().__init__(scenario, tally)
        self.tasks: dict[int, _Task] = {}
        self.waiting: list[dict[int, None]] = [{} for _ in range(scenario.pools)]  # but for suspects
        self._answered = 0
        self._passed: dict[int, int] = {}  # request that waited while one of a lower class was sent: its attempt
        self.turns = [SimTurns() for _ in range(scenario.pools)]

    def tries_suspects(self, replica: KnownReplica) -> bool:
        return any(self.tasks[number].suspect for number in replica.out)

    def begin_phase(self, phase: int, *, closing: bool) -> None:
        if self.tasks:
            raise Violation(f"phase {self.phase} has ended, but {sorted(self.tasks)} continue")
        super().begin_phase(phase, closing=closing)

    def out_on(self, replica: int) -> list[tuple[int, int]]:
        return list(self.replicas[replica].out.items())

    # ------------------------------------------------------------ what the core receives

    def submitted(self, task: int, pool: int, priority: int) -> None:
        if task in self.tasks:
            raise Violation(f"task {task} was started twice")
        self.tasks[task] = _Task(pool, priority, answered_before=self._answered)
        self.waiting[pool][task] = None

    def saw_lost(self, event: ev.ReplicaLost, now: float) -> None:
        replica = self.replicas[event.replica]
        if event.incarnation != replica.incarnation or not replica.up:
            return
        out, replica.out = replica.out, {}
        alone = len(out) == 1 and replica.alone in out
        if event.out_of_memory and replica.was_ready and not (replica.slow or replica.leaving or replica.removed):
            self._starved(replica, out, now)
            return
        in_lane = bool(out) and all(self.tasks[number].suspect for number in out)
        for number in out:
            task = self.tasks[number]
            task.replica = -1
            if task.begun:
                continue  # it has to end
            if replica.slow or replica.evicted:
                task.ejections += 1
                if not task.suspect:
                    self.waiting[task.pool][number] = None
                continue
            task.crashes += 1
            task.alone_deaths += alone
            task.suspect = task.crashes >= self.limits.suspect_crashes
            if not in_lane:
                task.killed, task.killed_at = event.replica, now
            if not task.suspect:
                self.waiting[task.pool][number] = None
        replica.up = replica.ready = False
        replica.lost_in = self.turn
        replica.asked.clear()
        replica.begun.clear()
        if replica.leaving or replica.lowered or replica.removed:
            replica.leaving = replica.asleep = False
            return
        replica.never_ready += not replica.was_ready
        replica.deaths = self.recent(replica.deaths, now, event.device_failed)
        if not in_lane:
            replica.sure_deaths = self.recent(replica.sure_deaths, now, event.device_failed)
        deaths, loads = self.most(replica)
        if weight(replica.sure_deaths) >= deaths or replica.never_ready >= loads:
            replica.may_start = False

    def _starved(self, replica: KnownReplica, out: dict[int, int], now: float) -> None:
        """Out of memory makes no suspects; in the lane they stay what they are."""
        share = max(replica.share * self.limits.memory_cut, self.limits.least_share)
        cuts = replica.slots_now > 1 or replica.tokens_now > 0
        smaller = cuts and share < replica.share and not replica.starved.get((replica.slots_now, replica.tokens_now))
        for number in out:
            task = self.tasks[number]
            task.replica = -1
            if task.begun:
                continue  # it has to end
            task.starved += len(out) == 1
            task.suspect = task.suspect or not smaller
            if not task.suspect:
                self.waiting[task.pool][number] = None
        room = (replica.slots_now, replica.tokens_now)
        replica.starved[room] = replica.starved.get(room, 0) + 1
        replica.up = replica.ready = False
        replica.lost_in = self.turn
        replica.asked.clear()
        replica.begun.clear()
        replica.deaths = self.recent(replica.deaths, now)
        replica.share = share

    def saw_first_parts(self, event: ev.FirstParts) -> None:
        replica = self.replicas[event.replica]
        for number, attempt in zip(event.tasks, event.attempts, strict=True):
            if event.incarnation == replica.incarnation and replica.out.get(number) == attempt:
                self.tasks[number].begun = True
                self.tally.hit("first part")

    def saw_answers(self, event: ev.AnswersArrived) -> None:
        """Retries and returned requests wait again; the others end when the core says so."""
        replica = self.replicas[event.replica]
        if event.incarnation != replica.incarnation or not replica.ready:
            self.tally.hit("answer: while killed", int(replica.killed))
            return
        if event.tasks:
            replica.fruitless = 0  # each of those that are out now may be asked for once more
        asked = replica.asked.keys() | replica.begun.keys()  # by this take-back, or by one whose reply crossed with it
        returned = [t for t in event.returned or () if t in replica.out and t in asked and not self.tasks[t].begun]
        if event.returned is not None:
            replica.begun.update(replica.asked)
            replica.asked.clear()
            replica.fruitless += not event.returned
            if replica.fruitless > MOST_MOVES + replica.slots + len(replica.out):  # each may be asked for once
                raise Violation(f"replica {event.replica} is asked in vain for what it has begun: {replica}")
        for task, attempt, code in zip(event.tasks, event.attempts, event.codes or (), strict=False):
            if code == "retry" and replica.out.get(task) == attempt:
                self.tasks[task].retries += 1
                self._waits_again(task, replica)
        for task in returned:
            if self.tasks[task].suspect:  # one that was called back has shown nothing yet
                self._leave(replica, task)
                self.tasks[task].replica = -1
            else:
                self._waits_again(task, replica)

    def _waits_again(self, number: int, replica: KnownReplica) -> None:
        task = self.tasks[number]
        self._leave(replica, number)
        task.replica, task.suspect = -1, False
        self.waiting[task.pool][number] = None

    # ------------------------------------------------------------ what the core says

    def sent(self, send: ev.Send, now: float) -> None:
        replica = self.replicas[send.replica]
        if replica.removed:
            raise Violation(f"requests {send.tasks} were sent to replica {send.replica}, which drains: {replica}")
        if self.turns[replica.pool].paused:
            raise Violation(f"requests {send.tasks} were sent to pool {replica.pool}, which is paused")
        if self.draining or not replica.ready or replica.leaving or send.incarnation != replica.incarnation:
            raise Violation(f"requests {send.tasks} were sent to replica {send.replica}, which is not to have any")
        replica.fruitless = 0
        replica.alone = send.tasks[0] if not replica.out and len(send.tasks) == 1 else -1
        for number, attempt in zip(send.tasks, send.attempts, strict=True):
            task = self.tasks.get(number)
            if task is None or task.replica >= 0 or task.pool != replica.pool:
                raise Violation(f"request {number} was sent to replica {send.replica}; it does not wait: {task}")
            if task.begun:
                raise Violation(f"request {number} is sent again, and a part of its answer has been seen: {task}")
            if task.retries >= self.limits.max_attempts:
                raise Violation(f"request {number} continues after {task.retries} retryable answers")
            if (
                attempt
                > MOST_MOVES + task.retries + task.crashes + task.ejections + self._answered - task.answered_before
            ):
                raise Violation(f"request {number} is sent back and forth: {attempt} times, {task}")
            if attempt != task.attempt + 1:
                raise Violation(f"request {number} was sent as attempt {attempt} after {task.attempt}")
            task.attempt, task.replica = attempt, send.replica
            for waits in self.waiting[task.pool]:
                if self.tasks[waits].priority < task.priority and not task.suspect:
                    self._passed[waits] = self.tasks[waits].attempt
            replica.out[number] = attempt
            self.waiting[task.pool].pop(number, None)
        suspects = sum(self.tasks[number].suspect for number in replica.out)
        if suspects not in (0, len(replica.out)):
            raise Violation(f"replica {send.replica} tries suspects beside others: {sorted(replica.out)}")
        if suspects:
            self._begin_turn(replica, now)
        if suspects > replica.slots:
            raise Violation(f"replica {send.replica} has {suspects} suspects, more than its {replica.slots} slots")
        if len(replica.out) > replica.slots + self.limits.max_lookahead:
            raise Violation(f"replica {send.replica} with {replica.slots} slots was sent {len(replica.out)} requests")

    def _begin_turn(self, replica: KnownReplica, now: float) -> None:
        ready = [each for each in self.replicas if each.pool == replica.pool and each.ready and not each.removed]
        last, others_wait = len(ready) == 1, bool(self.waiting[replica.pool])
        self.turns[replica.pool].begin(now, last=last, others_wait=others_wait)
        self.tally.hit("suspects: on the last ready replica", int(last and others_wait))

    def take_back(self, take: ev.TakeBackFrom) -> None:
        replica = self.replicas[take.replica]
        if any(task not in replica.out for task in take.tasks) or take.incarnation != replica.incarnation:
            raise Violation(f"requests {take.tasks} were called back from replica {take.replica}, which has them not")
        replica.asked.update((task, None) for task in take.tasks)

    def abort(self, abort: ev.AbortOn) -> None:
        self.tally.hit("abort")
        for task in abort.tasks:
            if task in self.tasks:
                raise Violation(f"request {task} was aborted, but its task continues")

    def cancelled(self, task: int) -> None:
        self._end(task)

    def delivered(self, answer: SimAnswer, index: int) -> None:
        replica = self.replicas[index]
        if answer.forged or answer.code:
            raise Violation(f"an answer was taken as a result that is none: {answer}")
        if answer.task not in self.tasks or not replica.ready or replica.out.get(answer.task) != answer.attempt:
            raise Violation(f"an answer was taken that nobody waits for: {answer} of replica {index}")
        if self.tasks[answer.task].crashes >= self.limits.suspect_crashes:
            self.tally.hit("suspect answered")
        self._answered += 1
        replica.half_open = False
        self._end(answer.task)

    def failed(self, number: int, code: str, now: float) -> None:
        task = self.tasks.get(number)
        if task is None:
            raise Violation(f"request {number} failed with {code}, but it has ended")
        if code == "expired" and (
            task.timeout_s is None or task.seen_at is None or now < task.seen_at + task.timeout_s
        ):
            raise Violation(f"request {number} expired at {now}: {task}")
        if code == "replica_lost" and not task.begun:
            raise Violation(f"request {number} was given up for a part of its answer that nobody saw: {task}")
        if code == "engine_error" and task.retries < self.limits.max_attempts:
            raise Violation(f"request {number} was given up after {task.retries} of {self.limits.max_attempts} tries")
        if task.starved >= self.limits.same_memory:
            self.tally.hit("dead: out of memory alone")
        elif code == "engine_crash" and task.alone_deaths < self.limits.solo_crashes:
            raise Violation(f"request {number} was given up; it killed alone {task.alone_deaths} times: {task}")
        if code == "engine_crash" and task.killed >= 0:
            self._forgive(self.replicas[task.killed], task.killed_at)
        self._end(number)

    def _end(self, number: int) -> None:
        task = self.tasks.pop(number, None)
        if task is None:
            return
        self.waiting[task.pool].pop(number, None)
        if task.replica >= 0:
            self._leave(self.replicas[task.replica], number)

    @staticmethod
    def _forgive(replica: KnownReplica, at: float) -> None:
        """Its death of then was a request's; where it was given up for it, it stays so."""
        replica.sure_deaths = [death for death in replica.sure_deaths if death[0] != at]

    @staticmethod
    def _leave(replica: KnownReplica, number: int) -> None:
        for where in (replica.out, replica.asked, replica.begun):
            where.pop(number, None)

    # ------------------------------------------------------------ after every turn

    def check(self, now: float) -> None:
        """Nobody idles while there is something to do, and no class is passed over by a lower one."""
        for number, attempt in self._passed.items():
            if (task := self.tasks.get(number)) is not None and task.replica < 0 and task.attempt == attempt:
                raise Violation(f"request {number} waits, and one of a lower class was sent: {task}")
        self._passed.clear()
        for number, task in self.tasks.items():
            task.seen_at = now if task.seen_at is None else task.seen_at
            if task.is_over(now - LONGEST_TICK_S):
                raise Violation(f"request {number} continues at {now}, past its deadline: {task}")
        self.turn += 1
        for pool, turns in enumerate(self.turns):
            ready = [each for each in self.replicas if each.pool == pool and each.ready and not each.removed]
            if ready and not any(map(self.tries_suspects, ready)):
                turns.end(now)
        if self.draining:
            return
        self._check_removed()
        for index, replica in enumerate(self.replicas):
            if not replica.ready or replica.leaving or replica.out or self.turns[replica.pool].paused:
                continue
            waiting = self.waiting[replica.pool]
            if waiting:
                raise Violation(f"replica {index} is idle while requests {list(waiting)[:5]} wait")
            peers = [peer for peer in self.replicas if peer.pool == replica.pool and peer.ready]
            if any(peer.asked for peer in peers):
                continue
            for peer in peers:
                if len(peer.out) > max(peer.slots, len(peer.begun)):
                    raise Violation(f"replica {index} is idle while {peer} has more than its slots hold")
