"""Dispatch: puts requests on replicas, and takes care of the replicas.

A request is in exactly one place and leaves exactly once:

    Submit ──▶ waiting (a lane of its pool) ──Send──▶ in flight on one replica ──answer──▶ Deliver or FailRequests
                  ▲                                        │
                  └── returned (TakeBack), "retry" ────────┤              (attempt + 1 at the next Send)
     failover.py, quarantine.py ◀── replica lost ────────────┘

An answer is taken only if its request is in flight on that replica, of that incarnation, with that attempt; any other
is dropped and counted. A replica's states and what moves it between them are the table in `replica_states.py`.

A request that was in flight at a death is a suspect: one replica runs suspects apart, in halves, and only one that
kills it alone, twice, is given up (`engine_crash`). So a row that merely sat beside a poisonous one does not die.

Invariants (`check.py`): each request is in exactly one place; tokens charged equal the sum over what is in flight; no
ready replica with spare credit is idle while a request that it may run waits; attempts and restarts stay under their
limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from penstock.core import events as ev
from penstock.core.dispatch.deadlines import Deadlines
from penstock.core.dispatch.failover import LOST_STREAM, Failover
from penstock.core.dispatch.lanes import NO_DEADLINE, SUSPECT, Request
from penstock.core.dispatch.membership import Membership
from penstock.core.dispatch.pool import Pool, Tasks
from penstock.core.dispatch.replica import Replica
from penstock.core.dispatch.residency import Residency
from penstock.core.dispatch.state import DispatchState, add_failure
from penstock.core.dispatch.supervisor import Supervisor
from penstock.core.shape import DispatchShape

E = TypeVar("E", bound=ev.ReplicaEvent)


class Dispatch(DispatchState):
    """`handle(events, now)` with the events of the dispatcher; see core/events.py for both languages."""

    def __init__(self, shape: DispatchShape) -> None:
        super().__init__(shape)
        self.residency = Residency(self)
        self.failover = Failover(self)
        self.supervisor = Supervisor(self, self.residency, self.failover)
        self.membership = Membership(self, self.residency)
        self.deadlines = Deadlines()
        self.stale_answers = 0
        self._drained = False
        self._handlers = {
            ev.OpenPools: self.residency.open,
            ev.ClosePools: self.residency.close,
            ev.ReplicaAsleep: self._current(self.residency.asleep),
            ev.Submit: self._on_submit,
            ev.Exhausted: self._on_exhausted,
            ev.CancelRequests: self._on_cancel_requests,
            ev.ReplicaReady: self._current(self.supervisor.on_replica_ready),
            ev.ReplicaLoadFailed: self._current(self.supervisor.on_replica_load_failed),
            ev.ReplicaLost: self._current(self.supervisor.on_replica_lost),
            ev.AnswersArrived: self._on_answers_arrived,
            ev.FirstParts: self._current(self._on_first_parts),
            ev.HeartbeatArrived: self._current(self.supervisor.on_heartbeat),
            ev.DrainRequested: self._on_drain_requested,
            ev.AddReplica: self.membership.add,
            ev.RemoveReplica: self.membership.remove,
            ev.PausePool: self.membership.pause,
            ev.ResumePool: self.membership.resume,
            ev.SlotsChanged: self._current(self.membership.slots_changed),
            ev.Tick: self._on_tick,
        }

    def _current(self, handler: Callable[[Replica, E], None]) -> Callable[[E], None]:
        """`handler` for what the present incarnation says. The end of an earlier one has been dealt with: what it says
        late would be taken for its successor's."""

        def handle(event: E) -> None:
            replica = self.replicas[event.replica]
            if event.incarnation == replica.incarnation:
                handler(replica, event)

        return handle

    # ------------------------------------------------------------ requests come in

    def _on_submit(self, event: ev.Submit) -> None:
        pool = self.pools[event.pool]
        step, priority, index = event.step, event.priority, event.pool
        deadline = NO_DEADLINE if event.timeout_s is None else self.now + event.timeout_s
        costs = zip(event.tasks, event.orders, event.tokens_in, event.tokens_out, strict=True)
        requests = [
            Request(task, step, order, priority, deadline, tokens_in, tokens_out, index)
            for task, order, tokens_in, tokens_out in costs
        ]
        self.requests.update(zip(event.tasks, requests, strict=True))
        pool.lanes.extend(requests)
        if event.timeout_s is not None:
            for request in requests:
                self.deadlines.add(request)
        self.dirty(pool)
        self.residency.first_request(pool)

    def _on_exhausted(self, event: ev.Exhausted) -> None:
        for pool in self.pools:
            # Until now the order of the input counted; from here on what ends last decides when the run ends.
            pool.level_work()
            self.dirty(pool)  # another request may be first now, and fit

    def _on_cancel_requests(self, event: ev.CancelRequests) -> None:
        self._withdraw(event.tasks)
        self.emit(ev.Cancelled(tasks=event.tasks))

    def _on_tick(self, event: ev.Tick) -> None:
        """Expire first: what is not wanted any more is no reason to keep a replica, or to call it hung."""
        due = self.deadlines.due(self.requests, self.now)
        if due:
            ends = ev.FailRequests()
            for request in due:
                where = "in flight" if request.place >= 0 else "waiting"
                add_failure(ends, request, "expired", f"no answer by the deadline; the request was {where}")
            # First the end, then the abort: who aborts a request may rely on it that nobody waits for it.
            self.emit(ends)
            self._withdraw(ends.tasks)
        self.supervisor.on_tick(event)

    def _withdraw(self, tasks: Sequence[int]) -> list[Request]:
        """Take requests from where they are; engines abort what is in flight. Those that had not ended."""
        found = [request for task in tasks if (request := self.requests.pop(task, None)) is not None]
        aborts: dict[int, list[int]] = {}
        suspects: dict[int, set[int]] = {}
        for request in found:
            pool = self.pools[request.pool]
            self.dirty(pool)
            if request.place >= 0:
                self._release(self.replicas[request.place], request.task)
                aborts.setdefault(request.place, []).append(request.task)
            elif request.place == SUSPECT:
                suspects.setdefault(request.pool, set()).add(request.task)
            else:
                pool.lanes.end(request)
        for index, there in suspects.items():
            self.pools[index].quarantine.remove(there)
        for index, out in aborts.items():
            self.emit(ev.AbortOn(replica=index, incarnation=self.replicas[index].incarnation, tasks=out))
        return found

    # ------------------------------------------------------------ answers

    def _on_first_parts(self, replica: Replica, event: ev.FirstParts) -> None:
        for task, attempt in zip(event.tasks, event.attempts, strict=True):
            request = replica.in_flight.get(task)
            if request is not None and request.attempt == attempt:
                request.begun = attempt

    def _on_answers_arrived(self, event: ev.AnswersArrived) -> None:
        replica = self.replicas[event.replica]
        # An end was ordered or has come: its requests wait for another attempt, and must not end twice.
        if event.incarnation != replica.incarnation or not replica.answers:
            self._stale(replica, len(event.tasks), "from a replica that was given up")
            return
        pool = self.pool_of(replica)
        self.dirty(pool)
        for task, tokens in event.sized:
            self._resize(replica, task, tokens)
        # Before the number in flight changes: the time until now was spent with as many as there are.
        replica.pace.advance(len(replica.in_flight), self.now)
        accepted, failed = self._match(replica, pool, event)
        if accepted:
            replica.restarts.half_open = False  # it works
            # The lane's replica works after all: its deaths were the requests'.
            if replica.trying:
                pool.quarantine.fruitless = 0
            self.emit(ev.Deliver(batch=event.batch, replica=replica.index, accepted=accepted))
            self._pace(replica, event, accepted)
        if failed:
            self._fail_attempts(replica, pool, failed, event)
        if len(accepted) + len(failed) < len(event.tasks):
            self._stale(replica, len(event.tasks) - len(accepted) - len(failed), "duplicate or late")
        if event.returned is not None:
            self._take_returned(replica, pool, event.returned)
        # Only what waits for this pool shows that more look-ahead would have helped.
        replica.measure(len(accepted), event.turnaround_s, self.now)
        replica.saw(event.progress, event.executing, self.now)
        pool.offer(replica)
        pool.recount(replica)

    def _take_returned(self, replica: Replica, pool: Pool, returned: list[int]) -> None:
        """What a host had not begun and gives back waits again."""
        suspects: list[Request] = []
        for task in returned:
            # A reply that comes twice names what may have been sent since, and have begun. `started` too: of two
            # take-backs that are out the first reply settles both, and what the second one names is in no host then.
            asked = replica.in_flight.get(task)
            if asked is not None and (asked.recalled or asked.started) and not asked.begun:
                self._release(replica, task)
                # A suspect stays one until it is answered: beside innocents it might take their replica with it.
                if replica.trying:
                    suspects.append(asked)
                else:
                    pool.lanes.push(asked)
        pool.quarantine.put_back(suspects)
        self._forget_recall(replica)

    def _match(
        self, replica: Replica, pool: Pool, event: ev.AnswersArrived
    ) -> tuple[list[int], list[tuple[int, Request]]]:
        """Indexes of the results to deliver, and the (index, request) of failures. Both leave the replica."""
        in_flight, codes, requests = replica.in_flight, event.codes, self.requests
        accepted: list[int] = []
        failed: list[tuple[int, Request]] = []
        step, tokens_out, limits = -1, 0, 0
        for index, task in enumerate(event.tasks):
            request = in_flight.get(task)
            # The same task may be out a second time, elsewhere or here; only the attempt tells whose answer this is.
            if request is None or request.attempt != event.attempts[index]:
                continue
            replica.refund(request)
            if codes is not None and codes[index]:
                failed.append((index, request))
                continue
            accepted.append(index)
            del requests[task]
            # Answers come in runs of one step: learned once a run, not once an answer.
            if request.step != step:
                pool.lengths.learn(step, tokens_out, limits)
                step, tokens_out, limits = request.step, 0, 0
            tokens_out += event.tokens_out[index]
            limits += request.tokens_out
        pool.lengths.learn(step, tokens_out, limits)
        return accepted, failed

    def _pace(self, replica: Replica, event: ev.AnswersArrived, accepted: list[int]) -> None:
        tokens_in, tokens_out = event.tokens_in, event.tokens_out
        if len(accepted) < len(event.tasks):
            tokens_in, tokens_out = ([tokens[at] for at in accepted] for tokens in (tokens_in, tokens_out))
        replica.pace.answered(len(accepted), sum(tokens_in), sum(tokens_out))

    def _fail_attempts(
        self, replica: Replica, pool: Pool, failed: list[tuple[int, Request]], event: ev.AnswersArrived
    ) -> None:
        assert event.codes is not None
        ends = ev.FailRequests(batch=event.batch, replica=replica.index)
        for index, request in failed:
            code = event.codes[index]
            if code == "retry" and not self.may_run_again(request):
                code = LOST_STREAM
            elif code == "retry":
                request.failures += 1
                if request.failures < self.limits.max_attempts:
                    pool.lanes.push(request)
                    continue
                code = "engine_error"
            add_failure(ends, request, code, index=index)
        self.fail(ends)

    def _resize(self, replica: Replica, task: int, tokens: int) -> None:
        """The host has counted a prompt: correct what the request holds of the credit, and learn for the next ones."""
        request = replica.in_flight.get(task)
        # The first count is the prompt's; a second one of the same prompt teaches nothing.
        if request is not None and not request.counted:
            self.pools[request.pool].lengths.learn_prompt(request.step, tokens, request.tokens_in)
            request.cost += tokens - request.prompt
            replica.tokens_in_flight += tokens - request.prompt
            request.prompt, request.counted = tokens, True

    def _release(self, replica: Replica, task: int) -> Request | None:
        replica.pace.advance(len(replica.in_flight), self.now)
        request = replica.in_flight.get(task)
        if request is not None:
            replica.refund(request)
            self.pool_of(replica).offer(replica)
            self.touch(replica)
        return request

    def _forget_recall(self, replica: Replica) -> None:
        """What was called back and did not come had started: it will be answered."""
        if replica.recalled:
            for request in replica.in_flight.values():
                if request.recalled:
                    request.recalled, request.started = False, True
            replica.started += replica.recalled
            replica.recalled = 0

    def _stale(self, replica: Replica, count: int, reason: str) -> None:
        if count:
            self.stale_answers += count
            self.emit(ev.Recovered(kind="stale_answer", replica=replica.index, count=count, reason=reason))

    # ------------------------------------------------------------ decisions, once per call

    def _settle(self) -> None:
        if self.draining_until is not None:
            self._check_drained(self.draining_until)
            return
        for pool in self._dirty.values():
            self.membership.check_drained(pool)
            if pool.paused:
                continue
            sends: Tasks = {}
            # Suspects first: the replica that they need must not be filled with others in the same breath.
            if pool.quarantine.groups or pool.quarantine.replica is not None:
                self.failover.try_suspects(pool, sends)
            filled = pool.fill(self.now)
            self._emit_sends(sends)
            self._emit_sends(filled)
            # Last: what is called back is what nobody had room for once all credit was given.
            self._emit_recalls(pool.to_take_back())
        self._dirty.clear()

    def _emit_sends(self, sends: Tasks) -> None:
        for index, (tasks, attempts) in sends.items():
            incarnation = self.replicas[index].incarnation
            self.emit(ev.Send(replica=index, incarnation=incarnation, tasks=tasks, attempts=attempts))

    def _emit_recalls(self, recalls: dict[int, list[int]]) -> None:
        for index, tasks in recalls.items():
            self.emit(ev.TakeBackFrom(replica=index, incarnation=self.replicas[index].incarnation, tasks=tasks))

    # ------------------------------------------------------------ clean shutdown

    def _on_drain_requested(self, event: ev.DrainRequested) -> None:
        if self.draining_until is None:
            # Set before anything is called back, so that nothing that returns is sent again.
            self.draining_until = self.now + event.grace_s
            for pool in self.pools:
                self._emit_recalls(pool.to_take_back(everything=True))

    def _check_drained(self, until: float) -> None:
        if not self._drained and (self.now >= until or not any(r.in_flight for r in self.replicas)):
            self._drained = True
            self.emit(ev.Drained())
