"""From the state of a run to the facts shown by displays and summary.json."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from penstock.core.core import Core
from penstock.core.dispatch.replica import Replica
from penstock.core.flow.flow import Flow
from penstock.planning.run_plan import PlannedReplica, RunPlan
from penstock.redaction import without_secrets
from penstock.report.facts import PoolFacts, ReplicaFacts, RunFacts, figures
from penstock.runtime.replicas.record import Record
from penstock.runtime.replicas.replicas import Replicas
from penstock.runtime.rows.writer import Writer
from penstock.runtime.watch.clock import RunClock
from penstock.runtime.watch.stalls import Stalls
from penstock.units import noun

STATES = {
    "off": "starting",
    "starting": "starting",
    "ready": "ready",
    "quarantined": "ready",
    "killed": "stopping",
    "draining": "stopping",
    "leaving": "stopping",
    "waiting": "restarting",
    "failed": "failed",
    "falling_asleep": "asleep",
    "asleep": "asleep",
    "waking": "starting",
}
"""The state shown for each state of the dispatcher's replicas."""
_RATE_WINDOW_S = 5.0


class Observer:
    """Makes RunFacts. Rates are over the last seconds, and over the whole invocation at its end."""

    def __init__(
        self,
        *,
        clock: RunClock,
        core: Core,
        replicas: Replicas,
        writer: Writer,
        stalls: Stalls,
        record: Record,
        plan: RunPlan,
        out_dir: str,
        reused: int,
        estimate: Callable[[], int | None],
        phase: int,
    ) -> None:
        self._clock, self._core, self._writer = clock, core, writer
        self._replicas = replicas
        self._record, self._plan, self._stalls = record, plan, stalls
        self._out_dir, self._reused = out_dir, reused
        self._estimate = estimate
        self.phase = phase
        self._base_ended = core.flow.tally.ended
        self._began = clock.now()
        self._marks: list[tuple[float, int, int]] = [(self._began, 0, 0)]
        self._busy: dict[int, tuple[float, float]] = {}
        self.warnings: list[str] = []

    def facts(self, status: str = "") -> RunFacts:
        now = self._clock.now()
        flow = self._core.flow
        counts = flow.tally.counts()
        ended = flow.tally.ended - self._base_ended
        tokens = sum(pool.tokens_out for pool in self._record.pools)
        rows_per_s, tokens_per_s = self._rates(now, ended, tokens, whole=bool(status))
        total = self._total(flow, counts.rows_in)
        in_phase = flow.tally.ended
        of_phase = flow.total_rows if flow.total_rows is not None else self._estimate()
        firsts = [p.first_request_s for p in self._record.pools if p.first_request_s is not None]
        lasts = [p.last_response_s for p in self._record.pools if p.last_response_s is not None]
        return RunFacts(
            status=status or self._status(),
            out_dir=self._out_dir,
            wall_s=now,
            total_rows=total,
            committed=self._record.durable.ended_sources,
            reused=self._reused,
            in_memory=len(flow.open),
            rows_per_s=rows_per_s,
            tokens_per_s=tokens_per_s,
            eta_s=(of_phase - in_phase) / rows_per_s if of_phase is not None and rows_per_s > 0 else None,
            phase=self.phase + 1,
            phases=max(1, len(self._plan.phases)),
            phase_ended=in_phase,
            phase_total=of_phase,
            reason=without_secrets(self._reason(ended=bool(status))),
            pools=[self._pool(index, now) for index in range(len(self._plan.pools))],
            **figures(counts),
            dead_examples=list(self._record.dead.values()),
            warnings=[*self._plan.notes, *self.warnings, *self._record.notes],
            first_request_s=min(firsts, default=None),
            last_response_s=max(lasts, default=None),
        )

    def _total(self, flow: Flow, rows_in: int) -> int | None:
        """Rows of the source: known at its end, and in the phases after the first. An earlier invocation may have
        finished more than --limit allows now."""
        if self.phase:
            return rows_in
        total = flow.total_rows if flow.total_rows is not None else self._estimate()
        return None if total is None else max(total, rows_in)

    def begin_phase(self, number: int, estimate: Callable[[], int | None]) -> None:
        """The core and its effects have begun the phase; rates are those of the phase from here on."""
        self.phase, self._estimate = number, estimate
        tokens = sum(pool.tokens_out for pool in self._record.pools)
        self._base_ended = self._core.flow.tally.ended
        self._marks = [(self._clock.now(), 0, tokens)]

    def _status(self) -> str:
        if self._core.flow.stopping:
            return "stopping"
        return "running" if any(p.first_request_s is not None for p in self._record.pools) else "starting"

    def _reason(self, *, ended: bool) -> str:
        if not self._writer.waiting:
            return self._record.failure or ("" if ended else self._stalls.describe() or self._draining())
        if ended:
            return self._writer.waiting
        now = "interrupt again to stop without them" if self._core.flow.stopping else "continues when there is space"
        return f"{self._writer.waiting}; {now}"

    def _draining(self) -> str:
        """Requests that a stopping run is waiting for."""
        requests = sum(len(replica.in_flight) for replica in self._core.dispatch.replicas)
        if not self._core.flow.stopping or not requests:
            return ""
        minutes = round(self._core.drain_grace_s / 60)
        return (
            f"waiting for {noun(requests, 'request')} in flight, for up to {minutes} minutes; "
            "interrupt again to stop without them"
        )

    def _rates(self, now: float, ended: int, tokens: int, *, whole: bool) -> tuple[float, float]:
        marks = self._marks
        marks.append((now, ended, tokens))
        while len(marks) > 2 and marks[1][0] < now - _RATE_WINDOW_S:
            del marks[0]
        since, rows_then, tokens_then = (self._began, 0, 0) if whole else marks[0]
        elapsed = max(now - since, 1e-9)
        return (ended - rows_then) / elapsed, (tokens - tokens_then) / elapsed

    # ------------------------------------------------------------ pools and replicas

    def _pool(self, index: int, now: float) -> PoolFacts:
        planned, record = self._plan.pools[index], self._record.pools[index]
        members = [i for i, replica in enumerate(self._plan.replicas) if replica.pool == index]
        replicas = [self._replica(i, now) for i in members]
        return PoolFacts(
            name=planned.name,
            names=list(planned.names),
            kind=planned.kind,
            tokens_in=record.tokens_in,
            tokens_out=record.tokens_out,
            waiting=self._core.dispatch.pools[index].waiting(),
            first_request_s=record.first_request_s,
            last_response_s=record.last_response_s,
            loads=sum(replica.loads for replica in replicas),
            replicas=replicas,
        )

    def _replica(self, index: int, now: float) -> ReplicaFacts:
        planned, replica = self._plan.replicas[index], self._core.dispatch.replicas[index]
        link = self._replicas.links.get(index)
        facts = ReplicaFacts(
            id=planned.id,
            pool=self._plan.pools[planned.pool].name,
            devices=list(self._record.devices.get(index, planned.devices)),
            state="closed" if self._is_over(replica, planned) else STATES[replica.state],
            in_flight=len(replica.in_flight),
            slots=replica.slots,
            kv_tokens_planned=planned.kv_tokens,
            **msgspec.structs.asdict(self._record.replicas[index].plus(link)),
        )
        if link is not None:
            load = link.load
            facts.executing, facts.waiting, facts.device_bytes = load.executing, load.waiting, load.device_bytes
            facts.device_use = load.device_use if load.device_bytes else None
        then, busy_then = self._busy.get(index, (now, facts.busy_s))
        facts.busy_recent = min(1.0, (facts.busy_s - busy_then) / (now - then)) if now > then else 0.0
        self._busy[index] = (now, facts.busy_s)
        facts.reason = without_secrets(self._why(replica, planned, link.note if link is not None else "", now))
        return facts

    def _is_over(self, replica: Replica, planned: PlannedReplica) -> bool:
        """Whether no phase to come needs it."""
        return replica.state == "off" and bool(planned.phases) and max(planned.phases) < self.phase

    def _why(self, replica: Replica, planned: PlannedReplica, note: str, now: float) -> str:
        """Why a replica does nothing; "" when it works."""
        match replica.state:
            case "ready" if replica.in_flight:
                return ""
            case "quarantined":
                return "isolating suspect requests"
            case "ready":
                return self._why_idle()
            case "waiting":
                return (
                    f"restarting in {max(0.0, replica.restarts.start_at - now):.0f} s: {replica.restarts.last_reason}"
                )
            case "failed":
                return replica.restarts.last_reason
            case "leaving":
                return "phase finished"
            case "off":
                later = [phase for phase in planned.phases if phase >= self.phase]
                if planned.phases and self.phase not in later:
                    return f"waiting for phase {later[0] + 1}" if later else "phase finished"
                return "waiting for the first row"
        return note or replica.state

    def _why_idle(self) -> str:
        flow = self._core.flow
        if flow.stopping:
            return "the run is stopping"
        if flow.commits.full(self._clock.now()):
            return "waiting for the disk: " + (self._writer.waiting or "waiting for commits")
        if flow.total_rows is not None:
            return "no rows left"
        return "waiting for the source" if not flow.open else "waiting for rows from other steps"
