"""One life of the coordinator: the shipped core, and what the runtime would keep beside it.

Performs every instruction on the simulated world and turns its effects into events, as runtime/ does with processes and
files; each is judged by a checker on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock.core import events as ev
from penstock.core.core import Core
from penstock.core.dispatch.check import check_dispatch
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.events import Event, Instruction
from penstock.core.flow.check import check_flow
from penstock.core.flow.flow import Flow
from penstock.core.shape import Progress
from penstock.sim.checkers import RequestChecks
from penstock.sim.replicas import Host, SimAnswer, SimRequest
from penstock.sim.rows import SimRows
from penstock.sim.scenario import HostShape
from penstock.sim.source import SimSource
from penstock.sim.violations import Violation

if TYPE_CHECKING:
    from penstock.sim.world import World

__all__ = ["Coordinator", "Killed"]

DRAIN_GRACE_S = 2.0


class Killed(Exception):
    """The coordinator was killed between two instructions."""


class Coordinator:
    """kill_in: how many instructions it still performs, 0: no limit. status: how the phase ended."""

    def __init__(self, world: World, progress: Progress) -> None:
        scenario = world.scenario
        self.world = world
        self.alive = True
        self.status = ""
        self.kill_in = 0
        shape = scenario.phases[world.phase]
        self.dispatch = Dispatch(scenario.dispatch_shape())
        self.requests = RequestChecks(scenario, world.tally)
        self._open_phase(progress)
        self.core = Core(self.flow, self.dispatch, DRAIN_GRACE_S, pools=shape.pools, lazy=shape.lazy, phase=world.phase)
        self.shapes: dict[int, HostShape] = dict(enumerate(scenario.hosts))
        self.hosts: dict[int, Host] = {}
        self._batches: dict[int, list[SimAnswer]] = {}
        self._last_batch = 0
        if progress.ended_above:
            world.tally.hit("resumed with rows above the watermark")
        self._table: dict[type[Instruction], Callable[[Any], Iterable[Event]]] = {
            ev.ReadRows: self._read_rows,
            ev.StartTasks: lambda instruction: self.rows.start(instruction),
            ev.Adopt: lambda instruction: self.rows.adopt(instruction),
            ev.AdoptFamily: lambda instruction: self.rows.adopt_family(instruction),
            ev.CancelTasks: lambda instruction: self.rows.cancel(instruction),
            ev.DropRows: lambda instruction: self.rows.drop(instruction),
            ev.Commit: self._commit,
            ev.Drain: self._drain,
            ev.PhaseEnded: self._phase_ended,
            ev.StartReplica: self._start_replica,
            ev.KillReplica: self._kill_replica,
            ev.Send: self._send,
            ev.TakeBackFrom: self._take_back,
            ev.AbortOn: self._abort,
            ev.Deliver: self._deliver,
            ev.FailRequests: self._fail_requests,
            ev.PoolDown: self._pool_down,
            ev.Recovered: self._recovered,
            ev.SleepReplica: self._sleep_replica,
            ev.WakeReplica: self._wake_replica,
            ev.PoolsClosed: self._pools_closed,
            ev.ReplicaRemoved: self._replica_removed,
        }

    def _open_phase(self, progress: Progress, *, closing: bool = False) -> None:
        """What belongs to the phase that the world is in: its flow, its source, its rows."""
        world, scenario = self.world, self.world.scenario
        limit = None if world.phase else world.limit
        self.flow = Flow(scenario.flow_shape(world.pipeline, world.max_dead, limit), progress, world.now)
        self.source = SimSource(
            world.pipeline, world.files, progress, counts_done=bool(scenario.seed % 3), saw=world.sink.saw
        )
        self.rows = SimRows(
            world.pipeline, self.requests, world.tally, world.sink.partial, scenario.classes, scenario.timeout_s
        )
        self.requests.begin_phase(world.phase, closing=closing)

    def begin_phase(self) -> None:
        """The next phase with the same dispatcher; the world has made its sink."""
        phases, phase = self.world.scenario.phases, self.world.phase
        self.status, self.alive = "", True
        self._open_phase(self.world.sink.progress(), closing=True)
        here = phases[phase]
        sleep = [pool for pool in phases[phase - 1].sleep if any(pool in later.pools for later in phases[phase:])]
        self.core.begin(self.flow, here.pools, here.lazy, sleep, phase)

    def begin(self) -> Iterable[Event]:
        return self._tick()

    def _tick(self) -> Iterable[Event]:
        self.world.at(self.world.strikes.tick_s(), self._tick)
        return (ev.Tick(),)

    # ------------------------------------------------------------ turns

    def turn(self, events: Iterable[Event]) -> None:
        world = self.world
        for event in events:
            kind = type(event)
            if kind is ev.ReplicaAsleep:
                self.requests.saw_asleep(event)  # type: ignore[arg-type]
            elif kind is ev.AnswersArrived:
                self.requests.saw_answers(event)  # type: ignore[arg-type]
            elif kind is ev.FirstParts:
                self.requests.saw_first_parts(event)  # type: ignore[arg-type]
            elif kind is ev.ReplicaReady:
                self.requests.saw_ready(event)  # type: ignore[arg-type]
            elif kind is ev.ReplicaLost:
                self.requests.saw_lost(event, world.now)  # type: ignore[arg-type]
            elif kind is ev.ReplicaLoadFailed:
                self.requests.saw_load_failed(event)  # type: ignore[arg-type]
            else:
                self._saw_operator(event)
            if world.trace is not None:
                world.trace.event(world.now, event)
        self.core.turn(events, world.now, self.perform)
        self._batches.clear()
        self._check()

    def _saw_operator(self, event: Event) -> None:
        requests = self.requests
        match event:
            case ev.AddReplica():
                requests.saw_added(event)
            case ev.RemoveReplica():
                requests.saw_removed(event)
            case ev.SlotsChanged():
                requests.saw_slots(event)
            case ev.PausePool():
                requests.turns[event.pool].pause(self.world.now)
            case ev.ResumePool():
                requests.turns[event.pool].resume(self.world.now)

    def perform(self, instruction: Instruction) -> Iterable[Event]:
        if self.kill_in:
            self.kill_in -= 1
            if not self.kill_in:
                self.world.tally.hit("life ended: killed in a turn")
                raise Killed
        if self.world.trace is not None:
            self.world.trace.instruction(self.world.now, instruction)
        action = self._table.get(type(instruction))
        return action(instruction) if action is not None else ()

    def _check(self) -> None:
        check_flow(self.flow)
        check_dispatch(self.dispatch)
        if self.status:
            return
        self.requests.check(self.world.now)
        commits = self.flow.commits
        self.rows.check(self.flow.limits, commits.partial, set(commits.ended))
        tasks = self.requests.tasks
        if self.flow.open.keys() != tasks.keys():
            raise Violation(f"the flow counts {sorted(self.flow.open)} as open; {sorted(tasks)} are")
        held = sum(pool.waiting() for pool in self.dispatch.pools)
        held += sum(len(replica.in_flight) for replica in self.dispatch.replicas)
        if held != len(tasks):
            raise Violation(
                f"the dispatcher holds {held} requests; {len(tasks)} have been submitted and have not ended"
            )

    # ------------------------------------------------------------ source and sink

    def _read_rows(self, read: ev.ReadRows) -> Iterable[Event]:
        if self.requests.draining:
            raise Violation("rows are read although the run is to end")
        read_s = self.world.scenario.read_s
        if not read_s:
            return self._rows_read(read.max_rows, read.below)
        self.world.at(read_s, partial(self._rows_read, read.max_rows, read.below))
        return ()

    def _rows_read(self, max_rows: int, below: int | None) -> Iterable[Event]:
        events = self.source.read(max_rows, below)
        for event in events:
            if isinstance(event, ev.RowsRead):
                self.rows.admit(event)
                self.world.sink.check_limit([*event.rows, *event.unreadable])
        if self.source.refused:
            self.world.tally.hit(f"source refused: {self.source.refused}")
        return events

    def _commit(self, commit: ev.Commit) -> Iterable[Event]:
        self.world.sink.begin(self.rows.take(commit))
        if len(commit.ended) >= self.flow.limits.commit_rows:
            self.world.tally.hit("commit: full window")
        self.world.at(self.world.strikes.commit_s(), self.world.sink.finish)
        return ()

    def _drain(self, drain: ev.Drain) -> Iterable[Event]:
        self.requests.draining = True
        return ()

    def _phase_ended(self, end: ev.PhaseEnded) -> Iterable[Event]:
        self.status = end.status
        self.alive = False
        if self.flow.commits.ended:
            raise Violation(f"the phase ended as {end.status}; {self.flow.commits.ended} were not committed")
        return ()

    # ------------------------------------------------------------ replicas

    def _start_replica(self, start: ev.StartReplica) -> Iterable[Event]:
        self.requests.started(start, self.world.now)
        host = self.hosts[start.replica] = Host(self, start.replica, start)
        host.start()
        return ()

    def _kill_replica(self, kill: ev.KillReplica) -> Iterable[Event]:
        self.requests.kill(kill)
        self.hosts[kill.replica].kill()
        return ()

    def _sleep_replica(self, sleep: ev.SleepReplica) -> Iterable[Event]:
        self.requests.sleeps(sleep)
        self._to_host(sleep.replica, sleep.incarnation, lambda host: host.sleep())
        return ()

    def _wake_replica(self, wake: ev.WakeReplica) -> Iterable[Event]:
        self.requests.wakes(wake)
        self._to_host(wake.replica, wake.incarnation, lambda host: host.wake())
        return ()

    def _pools_closed(self, closed: ev.PoolsClosed) -> Iterable[Event]:
        self.requests.pools_closed()
        return ()

    def _replica_removed(self, removed: ev.ReplicaRemoved) -> Iterable[Event]:
        self.requests.replica_removed(removed)
        self.world.tally.hit("replica removed")
        return ()

    def lost(self, lost: ev.ReplicaLost) -> Iterable[Event]:
        return (lost,)

    def answered(
        self,
        replica: int,
        incarnation: int,
        answers: list[SimAnswer],
        returned: list[int] | None,
        load: tuple[int, int, int],
    ) -> Iterable[Event]:
        """A message of a host has arrived."""
        self._last_batch += 1
        self._batches[self._last_batch] = answers
        codes = [answer.code for answer in answers]
        event = ev.AnswersArrived(
            batch=self._last_batch,
            replica=replica,
            incarnation=incarnation,
            tasks=[answer.task for answer in answers],
            attempts=[answer.attempt for answer in answers],
            codes=codes if any(codes) else None,
            tokens_in=[answer.tokens_in for answer in answers],
            tokens_out=[answer.tokens_out for answer in answers],
            executing=load[0],
            waiting=load[1],
            turnaround_s=2 * self.world.scenario.latency_s,
            progress=load[2],
            returned=returned,
            sized=[(answer.task, answer.tokens_in + 1) for answer in answers if answer.task % 7 == 0],
        )
        return (event,)

    # ------------------------------------------------------------ requests

    def _to_host(self, replica: int, incarnation: int, deliver: Callable[[Host], None]) -> None:
        host = self.hosts[replica]
        if host.incarnation == incarnation:
            host.later(self.world.scenario.latency_s, partial(host.receive, partial(deliver, host)))

    def _send(self, send: ev.Send) -> Iterable[Event]:
        self.requests.sent(send, self.world.now)
        items: Sequence[SimRequest] = [
            self.rows.request(task, attempt) for task, attempt in zip(send.tasks, send.attempts, strict=True)
        ]
        self._to_host(send.replica, send.incarnation, lambda host: host.requests(items))
        return ()

    def _take_back(self, take: ev.TakeBackFrom) -> Iterable[Event]:
        self.requests.take_back(take)
        self._to_host(take.replica, take.incarnation, lambda host: host.take_back(take.tasks))
        return ()

    def _abort(self, abort: ev.AbortOn) -> Iterable[Event]:
        self.requests.abort(abort)
        self._to_host(abort.replica, abort.incarnation, lambda host: host.abort(abort.tasks))
        return ()

    def _deliver(self, deliver: ev.Deliver) -> Iterable[Event]:
        answers = self._batches[deliver.batch]
        accepted = [answers[index] for index in deliver.accepted]
        for answer in accepted:
            self.requests.delivered(answer, deliver.replica)
        return self.rows.answered(accepted)

    def _fail_requests(self, fail: ev.FailRequests) -> Iterable[Event]:
        for task, code in zip(fail.tasks, fail.codes, strict=True):
            self.requests.failed(task, code, self.world.now)
            self.rows.failed(task, code)
        return (ev.TasksDead(tasks=fail.tasks),)

    def _pool_down(self, down: ev.PoolDown) -> Iterable[Event]:
        self.requests.pool_down(down.pool)
        if down.out_of_memory:
            self.world.tally.hit("pool down: out of memory")
        return (ev.StopRequested(reason="failed"),)

    def _recovered(self, recovered: ev.Recovered) -> Iterable[Event]:
        self.requests.recovered(recovered, self.world.now)
        self.world.tally.hit(f"recovered: {recovered.kind}")
        return ()
