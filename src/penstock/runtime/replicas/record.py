"""Statistics of a run: replicas and pools, dead rows by cause, recoveries."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from penstock.core import events as ev
from penstock.core.counts import Counts
from penstock.errors import ExitCode
from penstock.executors.base import Exit
from penstock.executors.guardian import KERNEL_KILLS
from penstock.executors.logs import log_of
from penstock.host.causes import cause_lines, is_device_failure, is_out_of_memory
from penstock.ledger.base import DeadRow, Receipt
from penstock.planning.run_plan import RunPlan
from penstock.protocol.messages import Answer
from penstock.redaction import without_secrets
from penstock.report.facts import DeadExample
from penstock.report.redact import message_without_row
from penstock.runtime.replicas.links import Link
from penstock.runtime.watch.log_writer import LogWriter
from penstock.terminal import visible
from penstock.units import noun

_NOT_CONFIGURED = ("missing_dependency", "bad_model")  # no replica of it can ever load: what was asked for is wrong
HOST_REFUSES = "penstock host: "  # what host/boot.py prints before an interpreter that can't be a host
_INTERPRETER_SAYS = ("Fatal Python error: ", "Segmentation fault", KERNEL_KILLS)
SHOWN_NOTES = 5
# Recoveries that a person wants to hear of; stale answers are only counted.
_MESSAGES = {
    "ladder": "ran out of memory while loading; retrying with {1}",
    "requeued": "died with {0} in flight, requeued: {1}",
    "memory": "ran out of memory; now limited to {0} of its capacity: {1}",
    "hang": "hangs and is restarted: {1}",
    "slow": "is slow and is restarted: {1}",
    "suspect": "isolates {0} of those in flight when a replica died",
    "circuit": "is not restarted again: {1}",
}


class ReplicaRecord(msgspec.Struct):
    """Figures of one replica over all its starts of this invocation; times on the run's clock."""

    restarts: int = 0
    loads: int = 0
    rows: int = 0
    busy_s: float = 0.0
    fill_s: float = 0.0
    ready_s: float | None = None
    kv_tokens: int = 0

    def plus(self, link: Link | None) -> ReplicaRecord:
        """With the figures of one more start."""
        if link is None:
            return self
        return ReplicaRecord(
            restarts=self.restarts,
            loads=self.loads + link.loads,
            rows=self.rows + link.rows,
            busy_s=self.busy_s + link.load.busy_s,
            fill_s=self.fill_s + link.load.fill_s,
            ready_s=link.ready_s if self.ready_s is None else self.ready_s,
            kv_tokens=link.kv_tokens or self.kv_tokens,
        )


class PoolRecord(msgspec.Struct):
    tokens_in: int = 0
    tokens_out: int = 0
    first_request_s: float | None = None
    last_response_s: float | None = None
    down: str = ""


class Record:
    """notes: the last recoveries in words; all are in the run's log, logs/coordinator.log."""

    def __init__(self, plan: RunPlan, logs: Path) -> None:
        self.replicas = [ReplicaRecord() for _ in plan.replicas]
        self.pools = [PoolRecord() for _ in plan.pools]
        self._pool_of = [replica.pool for replica in plan.replicas]
        self._names = [replica.id for replica in plan.replicas]
        self._rungs = [replica.rungs for replica in plan.replicas]
        # What the functions of Python steps print, or raise in threads of their own, may hold rows.
        self._prints_rows = [plan.pools[replica.pool].kind == "python" for replica in plan.replicas]
        self._planned_devices = [replica.devices for replica in plan.replicas]
        self.logs = logs
        self.incidents = 0  # broken invariants that the pools survived
        self.log = logs / "coordinator.log"
        self.log_writer = LogWriter(self.log)
        self.kill_reasons: dict[tuple[int, int], str] = {}
        self.dead: dict[tuple[str, str], DeadExample] = {}
        self.notes: deque[str] = deque(maxlen=SHOWN_NOTES)
        self.failure = ""
        self.durable = Counts()  # the totals that are on disk
        self.exit_code: int = ExitCode.FAILED  # of a run that failed
        self.devices: dict[int, tuple[str, ...]] = {}  # what it got, () before it is placed; absent: as planned
        self.out_of_memory: set[int] = set()  # pools whose replicas ran out of memory on the last rung
        self.load_codes: dict[int, str] = {}  # replica -> why it could not load, a code of messages.LoadFailed

    # ------------------------------------------------------------ requests

    def request_sent(self, replica: int, now: float) -> None:
        pool = self.pools[self._pool_of[replica]]
        if pool.first_request_s is None:
            pool.first_request_s = now

    def answered(self, replica: int, now: float) -> None:
        pool = self.pools[self._pool_of[replica]]
        if pool.first_request_s is not None:
            pool.last_response_s = now

    def delivered(self, deliver: ev.Deliver, items: Sequence[Answer]) -> None:
        pool = self.pools[self._pool_of[deliver.replica]]
        for index in deliver.accepted:
            answer = items[index]
            pool.tokens_in += answer.tokens_in
            for output in answer.outputs:
                pool.tokens_out += output.tokens_out

    # ------------------------------------------------------------ replicas

    def replica_ended(self, index: int, link: Link) -> None:
        self.replicas[index] = self.replicas[index].plus(link)

    def reason_of(self, index: int, exit_: Exit, link: Link | None) -> str:
        """Why a replica ended, in words, with the cause from its own log where it ended by itself."""
        killed = self.kill_reasons.pop((index, exit_.incarnation), "")
        if killed:
            return killed
        how = f"exited with code {exit_.status}" if exit_.status >= 0 else f"was killed by {_signal(-exit_.status)}"
        if link is not None and link.note.startswith("broke the protocol"):
            how = link.note
        cause = self._last_words(index, exit_.tail)
        if is_device_failure(cause):
            cause += f"; on {', '.join(self.devices.get(index, self._planned_devices[index]))}"
        return f"{self._names[index]} {how}{cause} (log: {log_of(self.logs, self._names[index])})"

    def _last_words(self, index: int, tail: str) -> str:
        lines = [line.strip() for line in tail.strip().splitlines()]
        refused = next((line.removeprefix(HOST_REFUSES) for line in lines if line.startswith(HOST_REFUSES)), "")
        if refused:
            self.load_codes[index] = "missing_dependency"
        own = [cause for cause in cause_lines(tail) if not cause.startswith(KERNEL_KILLS)]
        # That the kernel has ended a process tells something only where the replica itself tells nothing.
        causes = [refused] if refused else own[-1:] or cause_lines(tail)[-1:] or lines[-3:]
        if self._prints_rows[index] and not refused:
            causes = [_kind_of(cause) for cause in cause_lines(tail)[-1:]]
        return ": " + " | ".join(causes) if causes else ""

    def pool_down(self, down: ev.PoolDown) -> None:
        self.pools[down.pool].down = down.reason
        if down.out_of_memory:
            self.out_of_memory.add(down.pool)
        codes = [self.load_codes.get(index, "") for index, pool in enumerate(self._pool_of) if pool == down.pool]
        self.failed(down.reason, 2 if codes and all(code in _NOT_CONFIGURED for code in codes) else 1)

    def failed(self, reason: str, exit_code: int) -> None:
        """Why the run fails; the first reason counts."""
        if not self.failure:
            self.failure, self.exit_code = without_secrets(reason), exit_code

    def recovered(self, recovered: ev.Recovered) -> None:
        if recovered.kind == "restart":
            self.replicas[recovered.replica].restarts += 1
        words, reason = _MESSAGES.get(recovered.kind), recovered.reason
        if recovered.kind == "ladder":
            reason = self._rungs[recovered.replica][recovered.count - 1].message
        if words is not None and recovered.count:
            what = f"{recovered.count}%" if recovered.kind == "memory" else noun(recovered.count, "request")
            self.note(f"{self._names[recovered.replica]} " + words.format(what, reason))

    def note(self, text: str) -> None:
        """Remember it, and write it into the run's log. From any thread."""
        text = without_secrets(text)
        self.notes.append(text)
        self.log_writer.append(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {visible(text)}\n")

    def incident(self, story: str) -> None:
        """A broken invariant that ends nothing. Its story is in the log, once for each time that it is found."""
        self.incidents += 1
        self.note(f"an invariant is broken, which is a bug in Penstock: {story.partition(chr(10))[0]}; see {self.log}")
        self.log_story(story)

    def log_story(self, story: str) -> None:
        """Only into the log: it has hundreds of lines."""
        self.log_writer.append(f"{visible(without_secrets(story))}\n")

    def ended_leftovers(self, processes: Sequence[str]) -> None:
        """What an earlier start had left behind; `processes`: number and name of each."""
        if processes:
            were = noun(len(processes), "process", "processes")
            self.note(f"{were} left behind by an earlier start of this run, stopped now: {', '.join(processes)}")

    def close(self) -> None:
        self.log_writer.close()

    # ------------------------------------------------------------ rows

    def on_dead_row(self, dead: DeadRow) -> None:
        known = self.dead.get((dead.step, dead.code))
        if known is None:
            where = f"{dead.source}, row {dead.row}" + (f", child {dead.path}" if dead.path else "")
            message = message_without_row(dead.message, dead.input)
            self.dead[dead.step, dead.code] = DeadExample(dead.step, dead.code, 1, where, message)
        else:
            known.count += 1

    def committed(self, receipt: Receipt) -> None:
        self.durable = receipt.counts
        for dead in receipt.rejected:
            self.on_dead_row(dead)


def _kind_of(cause: str) -> str:
    """What kind of error it was, without the words of a function's own exception."""
    if is_out_of_memory(cause) or cause.startswith(_INTERPRETER_SAYS):
        return cause
    return cause.partition(":")[0]


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
